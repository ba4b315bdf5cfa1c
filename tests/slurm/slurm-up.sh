#!/usr/bin/env bash
# Start a one-node Slurm (munged, slurmctld, slurmd) under DIR, by hand, on loopback.
#
#   slurm-up.sh DIR [GPUS] [GPU_TYPE]      GPUS: 0, 1 or 2 pretend GPUs (default 1)
#
# Needs: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
# Works as root and as an ordinary user; no systemd, cgroups, database or /etc file.
# Prints the two environment variables that a client (snakemake) needs.
set -euo pipefail
dir=$(realpath -m "$1"); gpus=${2:-1}; type=${3:-}
user=$(id -un); cpus=${SLURM_TOY_CPUS:-$(nproc)}; mem=${SLURM_TOY_MEM_MB:-4000}
mkdir -p "$dir"/{etc,run,log,spool,state,munge,bin}
chmod 755 "$dir" "$dir"/{etc,run,log,spool,state,bin}; chmod 700 "$dir/munge"
read -r ctld_port slurmd_port < <(python3 - <<'PY'
import socket
s = [socket.socket() for _ in range(2)]
for x in s: x.bind(("127.0.0.1", 0))
print(*(x.getsockname()[1] for x in s))
PY
)

# munge: its own key and socket; the distribution's /etc/munge is not touched.
[ -s "$dir/munge/key" ] || (umask 077; dd if=/dev/urandom of="$dir/munge/key" bs=1024 count=1 status=none)
munged --force --key-file="$dir/munge/key" --socket="$dir/run/munge.socket" \
       --log-file="$dir/log/munged.log" --pid-file="$dir/run/munged.pid" \
       --seed-file="$dir/munge/seed"

# pretend GPUs: character devices that exist everywhere. A count alone (no File) is
# dropped by slurmd 22.05; a plain file is counted but CUDA_VISIBLE_DEVICES is not set.
devices=(/dev/null /dev/zero); : > "$dir/etc/gres.conf"; gres=
if [ "$gpus" -gt 0 ]; then
  printf 'AutoDetect=off\nName=gpu %sFile=%s\n' "${type:+Type=$type }" \
     "$(IFS=,; echo "${devices[*]:0:$gpus}")" > "$dir/etc/gres.conf"
  gres="Gres=gpu:${type:+$type:}$gpus"
fi

cat > "$dir/etc/slurm.conf" <<CONF
ClusterName=toy
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$dir/run/munge.socket
CredType=cred/munge
SlurmctldPort=$ctld_port
SlurmdPort=$slurmd_port
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.log
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$dir/log/jobs.txt
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,sched_min_interval=100000,bf_interval=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MinJobAge=3600
KillWait=3
GresTypes=gpu
NodeName=localhost NodeAddr=127.0.0.1 CPUs=$cpus Boards=1 SocketsPerBoard=1 CoresPerSocket=$cpus ThreadsPerCore=1 RealMemory=$mem $gres State=UNKNOWN
PartitionName=cpu Nodes=localhost Default=YES MaxTime=UNLIMITED DefaultTime=00:10:00 State=UP
PartitionName=gpu Nodes=localhost MaxTime=UNLIMITED DefaultTime=00:10:00 State=UP
CONF
: > "$dir/log/jobs.txt"

# snakemake-executor-plugin-slurm-jobstep (0.6.1) removes every SLURM_* variable but a few,
# SLURM_CONF among the removed, before its inner srun: give that srun the configuration back.
cat > "$dir/bin/srun" <<WRAP
#!/bin/sh
SLURM_CONF=$dir/etc/slurm.conf exec /usr/bin/srun "\$@"
WRAP
chmod +x "$dir/bin/srun"

export SLURM_CONF=$dir/etc/slurm.conf
/usr/sbin/slurmctld -i -c >/dev/null
/usr/sbin/slurmd -c -N localhost
for _ in $(seq 50); do
  [ "$(sinfo -h -N -p cpu -o %T 2>/dev/null)" = idle ] && break; sleep 0.2
done
[ "$(sinfo -h -N -p cpu -o %T)" = idle ] || { sinfo -R >&2; tail -n 5 "$dir"/log/slurm*.log >&2; exit 1; }
echo "SLURM_CONF=$SLURM_CONF"
echo "PATH=$dir/bin:\$PATH"
