#!/usr/bin/env bash
# Segment one volume in blocks on the nodes of a SLURM cluster: a Dask scheduler, a worker in each task, and voxport.
#
#   sbatch --nodes=8 slurm.sh /shared/scan.ome.zarr /shared/mask.ome.zarr -m vessels --statistics /shared/labels.csv
#
# The volume and the mask are in a folder that all nodes mount. After a time limit, a failure or scancel, the same line
# goes on with the run. Further arguments are options of voxport segment; memory and processors of a worker are SLURM's.
#SBATCH --job-name=voxport
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=2G
#SBATCH --time=12:00:00
#SBATCH --no-kill
#SBATCH --signal=B:TERM@60
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "slurm.sh: expected VOLUME MASK [OPTION...], got $# argument(s)" >&2
  exit 2
fi
: "${SLURM_MEM_PER_CPU:?submit it with sbatch, with memory as --mem-per-cpu}"
memory=$((SLURM_MEM_PER_CPU * SLURM_CPUS_PER_TASK * 9 / 10))MB
scan=$1 mask=$2
shift 2

# Whoever reaches a Dask scheduler can run code on its workers. Only who reads this folder's key can talk to this one.
folder=$(mktemp -d "$(dirname "$mask")/.voxport-dask-XXXXXX")
processes=()
# Not waited for: SLURM ends what is left of the steps with the job.
trap 'kill "${processes[@]}" 2>/dev/null || true; rm -rf "$folder"' EXIT
trap 'exit 143' TERM
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=voxport -keyout "$folder/key.pem" -out "$folder/cert.pem" 2>/dev/null
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True DASK_DISTRIBUTED__COMM__TLS__CA_FILE=$folder/cert.pem
for who in SCHEDULER WORKER CLIENT; do
  export "DASK_DISTRIBUTED__COMM__TLS__${who}__CERT=$folder/cert.pem" "DASK_DISTRIBUTED__COMM__TLS__${who}__KEY=$folder/key.pem"
done

alone=(--overlap --nodes=1 --ntasks=1 --mem=0)
srun "${alone[@]}" dask scheduler --protocol tls --port 0 --dashboard-address 127.0.0.1:0 \
  --scheduler-file "$folder/scheduler.json" &
processes+=($!)
# A worker that fails must not end the others: its block is given to one of them. Dask need not profile its workers.
export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False
VOXPORT_THREADS=$SLURM_CPUS_PER_TASK srun --overlap --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 --no-kill \
  dask worker --scheduler-file "$folder/scheduler.json" --protocol tls --nthreads 1 --no-nanny \
  --dashboard-address 127.0.0.1:0 --memory-limit 0 --local-directory "${TMPDIR:-/tmp}" --death-timeout 300 &
processes+=($!)

# The number of workers at the start decides the size of blocks.
address=$(timeout 900 python - "$folder/scheduler.json" "$SLURM_NTASKS" <<'PYTHON'
import sys

from distributed import Client

with Client(scheduler_file=sys.argv[1], timeout=300) as client:
    client.wait_for_workers(int(sys.argv[2]), timeout=600)
    print(client.scheduler.address)
PYTHON
)
srun "${alone[@]}" voxport segment "$scan" -o "$mask" --cluster "$address" --memory "$memory" "$@" &
processes+=($!)
wait "${processes[2]}"
