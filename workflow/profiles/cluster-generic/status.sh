#!/bin/sh
# status.sh JOB: tell Snakemake how a job of Slurm's is doing. For another scheduler, ask its own command.
state=$(squeue --noheader --states=all --format=%T --jobs="$1" 2>/dev/null) ||
  state=$(sacct --noheader --allocations --parsable2 --format=State --jobs="$1") # squeue soon forgets what has ended
case $state in
  COMPLETED) echo success ;;
  "" | PENDING | CONFIGURING | RUNNING | COMPLETING | SUSPENDED | REQUEUED) echo running ;; # "": asked in vain, now
  *) echo failed ;;
esac
