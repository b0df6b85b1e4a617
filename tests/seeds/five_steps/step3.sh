unshare -n bash step4.sh
