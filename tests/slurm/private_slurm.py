"""Run a command with a Slurm of its own: ``unshare -m --propagation private python private_slurm.py COMMAND...``.

Slurm finds its configuration in /etc/slurm. In a mount namespace of its own that folder is bound to a new one, so
nothing else on the machine meets this cluster: one node, partitions ``cpu`` and ``gpu``, two make-believe GPUs. The
daemons end with the command. Needs root and Debian's packages slurmctld, slurmd, slurm-client and munge.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SETTINGS = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill,UsePss
AccountingStorageType=accounting_storage/none
MinJobAge=3600
ReturnToService=2
KillWait=2
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
PropagateResourceLimits=NONE
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 CoresPerSocket=8 RealMemory=16000 Gres=gpu:fake:2 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=1-00:00:00 DefaultTime=30 DefMemPerCPU=500 State=UP
PartitionName=gpu Nodes={host} MaxTime=12:00:00 DefaultTime=30 DefMemPerCPU=500 State=UP
"""


def free_ports(n: int) -> list[int]:
    """Return `n` ports of the loopback interface that are free."""
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start(folder: Path) -> None:
    """Start munged, slurmctld and slurmd with all they write in `folder`, and wait for the node."""
    host = socket.gethostname().split(".")[0]
    if subprocess.run(["getent", "hosts", host], stdout=subprocess.DEVNULL).returncode:
        with Path("/etc/hosts").open("a") as hosts:
            hosts.write(f"127.0.0.1 {host}\n")
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir()
    (folder / "munge").chmod(0o700)
    key = folder / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    for gpu in range(2):
        (folder / f"gpu{gpu}").touch()
    controller_port, node_port = free_ports(2)
    Path("/etc/slurm/slurm.conf").write_text(
        SETTINGS.format(host=host, folder=folder, controller_port=controller_port, node_port=node_port)
    )
    Path("/etc/slurm/gres.conf").write_text(
        f"AutoDetect=off\nNodeName={host} Name=gpu Type=fake File={folder}/gpu[0-1]\n"
    )
    munged = ["munged", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munged += [f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munge/seed", f"--log-file={folder}/munge.log"]
    subprocess.run(munged, check=True, stderr=subprocess.DEVNULL)
    subprocess.run(["slurmctld"], check=True)
    subprocess.run(["slurmd"], check=True)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        state = subprocess.run(["sinfo", "-h", "-N", "-p", "cpu", "-o", "%T"], capture_output=True, text=True)
        if state.stdout.strip() == "idle":
            return
        time.sleep(0.2)
    raise RuntimeError("Slurm did not start:\n" + "".join(file.read_text() for file in folder.glob("slurm*.log")))


def stop(folder: Path) -> None:
    """Cancel what runs and end the daemons."""
    jobs = subprocess.run(["squeue", "-h", "-o", "%A"], capture_output=True, text=True, timeout=20).stdout.split()
    if jobs:
        subprocess.run(["scancel", *jobs], timeout=20)
        for _ in range(50):
            if not subprocess.run(["squeue", "-h", "-t", "R,CG"], capture_output=True, timeout=20).stdout.strip():
                break
            time.sleep(0.2)
    for name in ("slurmd", "slurmctld", "munged"):
        try:
            pid = int((folder / f"{name}.pid").read_text())
            os.kill(pid, signal.SIGTERM)
            for _ in range(50):
                os.kill(pid, 0)
                time.sleep(0.1)
            os.kill(pid, signal.SIGKILL)
        except (FileNotFoundError, ValueError, ProcessLookupError):
            continue


def main() -> int:
    """Return the exit status of the command, run while the cluster is up."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    (folder / "etc").mkdir()
    Path("/etc/slurm").mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", str(folder / "etc"), "/etc/slurm"], check=True)
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    try:
        start(folder)
        return subprocess.run(sys.argv[1:]).returncode
    finally:
        stop(folder)
        subprocess.run(["umount", "/etc/slurm"])
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
