"""The manifests in deploy/kubernetes are what Kubernetes accepts, and fit the server that they start."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
import typer
import yaml
from serving import serving

from outrider.cli.serve import app as command
from outrider.server.lifecycle import CLOSING_SECONDS

ROOT = Path(__file__).parents[2] / "deploy/kubernetes"
FOLDERS = [ROOT / "base", *sorted((ROOT / "overlays").iterdir())]
NOT_BUILT_IN = {"ScaledObject"}
"""Kinds whose schema is not Kubernetes' own."""


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def objects(request):
    """Kind -> the object of a rendered overlay."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed (Debian: apt install kubernetes-client)")
    ran = subprocess.run(["kubectl", "kustomize", request.param], capture_output=True, text=True, check=True)
    found = list(yaml.safe_load_all(ran.stdout))
    assert len({one["kind"] for one in found}) == len(found)
    return {one["kind"]: one for one in found}


@pytest.fixture(scope="module")
def pod(objects):
    return objects["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod):
    (container,) = pod["containers"]
    return container


def test_kubernetes_accepts_them(objects):
    validate = pytest.importorskip("kubernetes_validate").validate
    for kind, described in objects.items():
        if kind not in NOT_BUILT_IN:
            validate(described, "1.37", strict=True)


def test_all_belong_together(objects, pod):
    labels = {"app.kubernetes.io/name": "outrider"}
    assert objects["Deployment"]["spec"]["template"]["metadata"]["labels"] == labels
    assert objects["Service"]["spec"]["selector"] == labels
    for described in objects.values():
        assert described["metadata"]["labels"] == labels
        scaled = described["spec"].get("scaleTargetRef")
        assert scaled is None or scaled["name"] == objects["Deployment"]["metadata"]["name"]
    claims = [volume.get("persistentVolumeClaim", {}).get("claimName") for volume in pod["volumes"]]
    claimed = [objects[kind]["metadata"]["name"] for kind in objects if kind == "PersistentVolumeClaim"]
    assert [claim for claim in claims if claim] == claimed


def test_an_autoscaler_alone_decides_on_replicas(objects):
    scaled = objects.keys() & {"HorizontalPodAutoscaler", "ScaledObject"}
    assert ("replicas" in objects["Deployment"]["spec"]) != bool(scaled)


def test_the_options_are_those_of_the_command(container):
    options = typer.main.get_command(command).params
    known = {name for option in options for name in option.opts if name.startswith("--")}
    assert container["command"] == ["outrider"]
    verb, model, *given = container["args"]
    assert verb == "serve"
    assert not model.startswith("-")
    assert {option.partition("=")[0] for option in given} <= known


def test_it_may_drain_in_the_time_that_it_is_given(pod, container):
    (drain,) = [option for option in container["args"] if option.startswith("--drain-timeout=")]
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = before + int(drain.partition("=")[2]) + CLOSING_SECONDS
    assert pod["terminationGracePeriodSeconds"] >= needed


def test_probes_and_autoscalers_read_what_the_server_has(objects, container, served_llm):
    with serving(served_llm) as (base, _):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert httpx.get(base + container[probe]["httpGet"]["path"]).status_code == 200
        exported = httpx.get(f"{base}/metrics").text
    text = yaml.safe_dump(objects)
    read = set(re.findall(r"\b(?:vllm:|outrider_)num\w+", text))
    assert bool(read) == bool(objects.keys() & {"HorizontalPodAutoscaler", "ScaledObject"})
    for name in read:
        assert f"\n{name}{{" in exported or f"\n{name} " in exported


def test_they_name_nothing_that_is_ours_alone(objects):
    for image in re.findall(r"image: (\S+)", yaml.safe_dump(objects)):
        assert "/" not in image, "`kustomize edit set image` names the registry"
