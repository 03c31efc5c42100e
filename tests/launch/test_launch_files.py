"""The files of launch/ are what their schedulers take, run one command, and start it again when that helps."""

import importlib.machinery
import math
import os
import re
import shlex
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from absl import flags

from bloodcell_jax.cli.config_flags import parse
from bloodcell_jax.cli.train import TRAIN
from bloodcell_jax.errors import DataError, DivergedError, MachineError, StoppedError, UsageError
from bloodcell_jax.run.create import check_blocks, create_augmentation

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
KUBERNETES = ("kubernetes_job.yaml", "kubernetes_jobset.yaml", "gke_tpu.yaml")
SCRIPTS = ("slurm.sbatch", "tpu_vm.sh")
# The lowest version of Kubernetes in which podFailurePolicy is stable.
VERSION = "1.31"

# An error of the library (1) comes again as well.
HOPELESS = [1, UsageError.exit_code, DataError.exit_code, DivergedError.exit_code]
SAVED, MACHINE = StoppedError.exit_code, MachineError.exit_code


def text_of(name):
    return (LAUNCH / name).read_text(encoding="utf-8")


def documents(name):
    return list(yaml.safe_load_all(text_of(name)))


def job_of(name):
    """Return a file's Job; of a JobSet, the one that its controller makes."""
    last = documents(name)[-1]
    if last["kind"] == "Job":
        return last
    (replicated,) = last["spec"]["replicatedJobs"]
    name = f"{last['metadata']['name']}-{replicated['name']}-0"
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": replicated["template"]["spec"]}


def pod_of(name):
    return job_of(name)["spec"]["template"]["spec"]


def container_of(name):
    (container,) = pod_of(name)["containers"]
    return container


def environment_of(name):
    return {entry["name"]: entry.get("value") for entry in container_of(name)["env"]}


def commands_in(text):
    """Return the words of each `bloodcell train` of a script or page."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [shlex.split(line) for line in re.findall(r"\bbloodcell train --config=[^\n`]*", joined)]


def command_of(name):
    if name in KUBERNETES:
        return container_of(name)["command"]
    (command,) = commands_in(text_of(name))
    return command


def parsed(command):
    values = flags.FlagValues()
    TRAIN.define(values)
    left, config = parse(values, command[1:])
    assert not left
    return values, config


COMMAND = command_of("slurm.sbatch")
GRACE = parsed(COMMAND)[0]["grace_seconds"].value


def test_all_files_run_one_command_which_the_page_shows():
    shown = commands_in((ROOT / "docs" / "launch.md").read_text(encoding="utf-8"))
    names = {path.name for path in LAUNCH.iterdir()}
    assert names == {*KUBERNETES, *SCRIPTS, "skypilot.yaml", "Dockerfile"}
    assert all(command_of(name) == COMMAND for name in names - {"Dockerfile"})
    assert COMMAND in shown
    for command in shown:
        parsed(command)


def test_the_batch_of_the_command_can_be_cut_for_all_devices_of_each_file():
    config = parsed(COMMAND)[1]
    for devices in (8, 16):
        check_blocks(create_augmentation(config), config.train.batch_size, devices)


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_takes_the_objects(name):
    for document in [*documents(name)[:-1], job_of(name)]:
        kubernetes_validate.validate(document, VERSION, strict=True)
    spec = job_of(name)["spec"] | {"completionsMode": "Indexed"}
    with pytest.raises(kubernetes_validate.ValidationError, match="completionsMode"):
        kubernetes_validate.validate(job_of(name) | {"spec": spec}, VERSION, strict=True)


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_gives_every_pod_its_number_and_the_address_of_the_first(name):
    job, pod, environment = job_of(name), pod_of(name), environment_of(name)
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(environment["JAX_NUM_PROCESSES"]) > 1
    last = documents(name)[-1]
    if last["kind"] == "Job":
        service = documents(name)[0]
        assert (service["kind"], service["spec"]["clusterIP"]) == ("Service", "None")
        assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
        subdomain = pod["subdomain"]
        assert subdomain == service["metadata"]["name"]
    else:
        # The controller names the service like the set, and sets the subdomain.
        subdomain = last["metadata"]["name"]
        assert last["spec"]["network"]["enableDNSHostnames"] is True
    assert environment["JAX_COORDINATOR_ADDRESS"] == f"{job['metadata']['name']}-0.{subdomain}:8476"
    (number,) = [entry for entry in container_of(name)["env"] if entry["name"] == "JAX_PROCESS_ID"]
    path = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert number["valueFrom"]["fieldRef"]["fieldPath"] == path


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_starts_again_what_another_start_helps(name):
    spec, pod = job_of(name)["spec"], pod_of(name)
    assert pod["restartPolicy"] == "Never", "podFailurePolicy needs it"
    assert pod["terminationGracePeriodSeconds"] >= 1.25 * GRACE
    hopeless, *others = spec["podFailurePolicy"]["rules"]
    assert hopeless["action"] == "FailJob"
    assert hopeless["onExitCodes"] == {"containerName": "train", "operator": "In", "values": HOPELESS}
    if name == "kubernetes_jobset.yaml":
        assert not others
        assert spec["backoffLimit"] == 0, "the set restarts its pods together"
        policy = documents(name)[0]["spec"]["failurePolicy"]
        (rule,) = policy["rules"]
        assert rule.keys() == {"name", "action", "onJobFailureReasons"}
        assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
        assert policy["maxRestarts"] >= 10
    else:
        assert [rule["action"] for rule in others] == ["Ignore", "Ignore"]
        assert others[0]["onExitCodes"]["values"] == [SAVED]
        assert others[1]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
        assert spec["podReplacementPolicy"] == "Failed", "the only one beside a podFailurePolicy"
        assert spec["backoffLimit"] >= 10 * spec["completions"], "the loss of a node fails every pod once"


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_mounts_what_the_command_needs(name):
    container, volumes = container_of(name), {volume["name"]: volume for volume in pod_of(name)["volumes"]}
    mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert container["workingDir"] == "/work"
    assert "persistentVolumeClaim" in mounted["/work"]
    assert environment_of(name)["JAX_COMPILATION_CACHE_DIR"].startswith("/work/")
    limits = container["resources"]["limits"]
    if name == "gke_tpu.yaml":
        selector = pod_of(name)["nodeSelector"]
        chips = math.prod(int(side) for side in selector["cloud.google.com/gke-tpu-topology"].split("x"))
        assert selector["cloud.google.com/gke-tpu-accelerator"] == "tpu-v5-lite-podslice"
        assert chips == job_of(name)["spec"]["completions"] * limits["google.com/tpu"]
        assert container["resources"]["requests"]["google.com/tpu"] == limits["google.com/tpu"]
    else:
        assert limits["nvidia.com/gpu"] == 8
        assert mounted["/dev/shm"]["emptyDir"]["medium"] == "Memory"


def test_the_fields_of_the_jobset():
    # No package brings its schema: these are fields of jobset.x-k8s.io/v1alpha2.
    (jobset,) = documents("kubernetes_jobset.yaml")
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert jobset["spec"].keys() == {"network", "failurePolicy", "replicatedJobs"}
    assert jobset["spec"]["network"].keys() == {"enableDNSHostnames", "publishNotReadyAddresses"}
    assert jobset["spec"]["failurePolicy"].keys() == {"maxRestarts", "rules"}
    assert jobset["spec"]["replicatedJobs"][0].keys() == {"name", "replicas", "template"}
    assert jobset["spec"]["replicatedJobs"][0]["template"].keys() == {"spec"}


def test_skypilot_starts_again_what_another_start_helps():
    # SkyPilot's schema comes with all of SkyPilot only: these are its fields.
    (task,) = documents("skypilot.yaml")
    assert task.keys() == {"resources", "num_nodes", "workdir", "file_mounts", "setup", "run"}
    resources = task["resources"]
    assert resources.keys() == {"accelerators", "use_spot", "job_recovery"}
    assert resources["job_recovery"] == {"recover_on_exit_codes": [MACHINE, SAVED], "max_restarts_on_errors": 0}
    assert task["file_mounts"]["/work"]["mode"] == "MOUNT_CACHED"
    names = {"SKYPILOT_NODE_IPS": "10.0.0.7\n10.0.0.8\n", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1"}
    run = task["run"].replace("cd /work", "true").replace("exec bloodcell", "env; exec true")
    shown = subprocess.run(["bash", "-euc", run], env=os.environ | names, capture_output=True, text=True, check=True)
    assert {"JAX_COORDINATOR_ADDRESS=10.0.0.7:8476", "JAX_NUM_PROCESSES=2", "JAX_PROCESS_ID=1"} <= set(
        shown.stdout.splitlines()
    )


def test_the_folder_does_not_hide_the_program():
    found = importlib.machinery.PathFinder.find_spec("launch", [str(ROOT)])
    assert found.origin == str(ROOT / "launch.py")
