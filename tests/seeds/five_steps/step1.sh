#!/bin/bash
# A container in five steps, one namespace each, without tarbox. What was changed of the original: ../README.md.
#
#     bash step1.sh      beside the other steps, in a folder with skeletonfs/; $PROGRAM takes the place of the last bash
unshare -u bash step2.sh
