hostname mycontainer
unshare -p --fork --mount-proc bash step3.sh
