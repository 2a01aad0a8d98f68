"""The server's own application as a deployment of Ray Serve: replicas, autoscaling, prefix affinity.

Ray routes a request before it has read the body, by which a conversation is known. So the deployment that Ray's HTTP
proxy calls has no model: it reads the body and calls one that has, through a handle whose router sees a key of the
prompt. `outrider.ray.forwarding` has both ends of that call.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import ray
from pydantic import BaseModel, Field
from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from outrider.console import KvCacheDtype, Quantize
from outrider.ray.affinity import PrefixRouter
from outrider.ray.replica import Entry, Model
from outrider.server.keys import read_keys
from outrider.server.served_models import served_models
from outrider.server.setup import Setup

Replicas = Annotated[int, Field(ge=1)] | Literal["auto"]
_CLIENTS, _OTHERS = 10_000, 32
"""Requests at once: of all clients, and of a replica beside those in its queue, such as those that find it full."""


class Arguments(BaseModel, extra="forbid"):
    """Arguments of `app`: options of `outrider serve`, and in `llm` others of `LLM`."""

    model: str
    replicas: Replicas = 1
    threads: int | None = None
    context: int | None = None
    running: int = 8
    waiting: int = 64
    quantize: Quantize = Quantize.none
    kv_cache_dtype: KvCacheDtype = KvCacheDtype.int8
    served_model_name: list[str] = []
    api_key_file: Path | None = None
    llm: dict[str, Any] = {}


def app(given: Arguments) -> Application:
    """Builds the application, for `serve run` and the import path of a YAML file."""
    asked = Arguments.model_validate(given)
    loading = asked.model_dump(include={"threads", "context", "quantize", "kv_cache_dtype"})
    setup = Setup(
        models=served_models([asked.model], None, asked.served_model_name),
        required=[asked.model],
        options={"drafter": "auto", **loading, **asked.llm},
        scheduling={"running": asked.running, "waiting": asked.waiting},
        keys=read_keys(os.environ.get("OUTRIDER_API_KEY"), asked.api_key_file),
    )
    if not ray.is_initialized():  # `serve run` with an import path connects afterwards, and then keeps this connection
        ray.init(namespace="serve")
    return application(setup, asked.replicas)


def application(setup: Setup, replicas: Replicas) -> Application:
    """The application for the cluster that this process is connected to.

    A replica computes with `threads` of the setup; by default, with as many processors as let all replicas fit, or with
    a node's where their number is "auto". Where more are asked for than fit, they share processors.
    """
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    nodes = [processors for processors in nodes if processors] or [1]
    least = len(nodes) if replicas == "auto" else replicas
    fitting = [count for count in range(1, max(nodes) + 1) if _places(nodes, count) >= least]
    processors = setup.options["threads"] or max(fitting, default=1)
    places, running = max(_places(nodes, processors), 1), setup.scheduling["running"]
    shared = replicas != "auto" and replicas > places
    number: dict[str, Any] = {"num_replicas": replicas}
    if replicas == "auto":
        number = {"autoscaling_config": {"max_replicas": places, "target_ongoing_requests": running}}
    draining = {"graceful_shutdown_timeout_s": setup.limits.stopping}
    router = {"request_router_class": PrefixRouter, "request_router_kwargs": {"running": running}}
    models = serve.deployment(
        Model,
        **number,
        **draining,
        ray_actor_options={"num_cpus": 0 if shared else processors},
        max_ongoing_requests=sum(setup.scheduling.values()) + _OTHERS,
        request_router_config=RequestRouterConfig(**router),
    )
    entry = serve.deployment(
        Entry,
        **draining,
        num_replicas=len(nodes),  # a node that dies takes only the requests of its own with it
        max_replicas_per_node=1,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=_CLIENTS,
    )
    return entry.bind(models.bind(setup, processors, least if shared else 0))


def _places(nodes: Sequence[int], processors: int) -> int:
    return sum(node // processors for node in nodes)
