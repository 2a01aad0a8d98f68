"""What is asked of Ray for a number of replicas."""

from __future__ import annotations

import pytest
import ray
from pydantic import ValidationError

from outrider.ray import app, cluster


@pytest.fixture
def entry(monkeypatch):
    """What Ray's proxy calls, on nodes with so many processors each; `serve run` passes the arguments as texts."""

    def build(nodes, **arguments):
        found = [{"Alive": True, "Resources": {"CPU": float(cpus)}} for cpus in nodes]
        connections = []

        def alive_and_dead():
            assert connections, "Ray answers only who is connected"
            return [*found, {"Alive": False, "Resources": {"CPU": 99.0}}]

        monkeypatch.setattr(ray, "init", lambda **options: connections.append(options))
        monkeypatch.setattr(ray, "nodes", alive_and_dead)
        return app({"model": "demo", **arguments})._bound_deployment

    return build


@pytest.fixture
def deployed(entry):
    """The deployment of the replicas."""

    def build(nodes, **arguments):
        (models,) = entry(nodes, **arguments).init_args
        return models._bound_deployment

    return build


@pytest.mark.parametrize(
    ("nodes", "arguments", "processors"),
    [
        ([2], {"replicas": "2"}, 1),
        ([8], {"replicas": "2"}, 4),
        ([8], {"replicas": "3", "threads": "2"}, 2),
        ([8, 16], {"replicas": "3"}, 8),
        ([0, 4], {"replicas": "2"}, 2),
        ([2], {}, 2),
        ([2], {"replicas": "3"}, 0),  # they share
        ([4], {"replicas": "2", "threads": "3"}, 0),
    ],
)
def test_a_fixed_number_of_replicas_takes_the_processors(deployed, nodes, arguments, processors):
    models = deployed(nodes, **arguments)
    assert models.num_replicas == int(arguments.get("replicas", 1))
    assert models.ray_actor_options["num_cpus"] == processors


@pytest.mark.parametrize(
    ("nodes", "arguments", "most", "processors"),
    [([8, 4], {}, 3, 4), ([8, 4], {"threads": 2}, 6, 2), ([2], {"threads": "4"}, 1, 4)],
)
def test_auto_is_as_many_as_fit(deployed, nodes, arguments, most, processors):
    models = deployed(nodes, replicas="auto", running="3", **arguments)
    scaling = models._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (1, most, 3)
    assert models.ray_actor_options["num_cpus"] == processors


def test_each_node_has_an_entry(entry):
    found = entry([8, 0, 4])
    assert found.num_replicas == 2
    assert found._replica_config.max_replicas_per_node == 1


@pytest.mark.parametrize("wrong", [{"replicas": "0"}, {"replicas": "many"}, {"thread": "2"}, {"running": "x"}])
def test_wrong_arguments_are_named(deployed, wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        deployed([2], **wrong)


def test_the_end_waits_for_requests_that_take_longer_than_ray_waits(monkeypatch):
    asked = []

    def delete(name):
        asked.append(name)
        if len(asked) < 3:
            raise TimeoutError("after a minute")

    monkeypatch.setattr(cluster.serve, "delete", delete)
    cluster._delete()
    assert asked == ["outrider"] * 3
