"""The rotary embedding in config.json -> Rope per kind of layer."""

from __future__ import annotations

from collections.abc import Mapping

from outrider.checkpoints.config import Kind, Rope
from outrider.checkpoints.settings import Settings

_SECTIONS: dict[Kind, str] = {"sliding": "sliding_attention", "full": "full_attention"}
_THETA: dict[Kind, float] = {"sliding": 1e4, "full": 1e6}
_DEFAULT_PARTIAL = 0.25


def ropes(config: Settings, head_dims: Mapping[Kind, int], *, gemma4: bool) -> dict[Kind, Rope]:
    """The rope of each kind of layer in `head_dims`.

    Raises:
        CheckpointError: a scaling that is not supported, or a parameter that is not understood.
    """
    # The reference's defaults, for a config without parameters.
    rotated = {kind: _DEFAULT_PARTIAL if gemma4 and kind == "full" else 1.0 for kind in head_dims}
    found = {kind: Rope(_THETA[kind], dim, 2 * int(rotated[kind] * dim // 2)) for kind, dim in head_dims.items()}
    if config.has("rope_parameters"):
        sections = config.section("rope_parameters")
        for kind in head_dims:
            found[kind] = _rope(sections.section(_SECTIONS[kind]), head_dims[kind])
        sections.refuse_unread(_SECTIONS.values())
    elif not gemma4:
        return {kind: _gemma3_keys(config, kind, dim) for kind, dim in head_dims.items()}
    return found


def _gemma3_keys(config: Settings, kind: Kind, dim: int) -> Rope:
    """Gemma 3's keys before `rope_parameters`; `rope_scaling` applies to the full layers only."""
    if kind == "sliding":
        return Rope(config.number("rope_local_base_freq", _THETA[kind], low=1.0), dim, dim)
    theta = config.number("rope_theta", _THETA[kind], low=1.0)
    if config.has("rope_scaling"):
        return _rope(config.section("rope_scaling"), dim, theta)
    return Rope(theta, dim, dim)


def _rope(section: Settings, dim: int, theta: float | None = None) -> Rope:
    """One set of parameters: of type default, linear (with a factor) or proportional (a part of the dims rotates).

    Args:
        theta: where the section has none; None if it must.
    """
    kind = section.text("rope_type", section.text("type", "default"))
    section.skip("type")
    theta = section.number("rope_theta", theta, low=1.0)
    factor = section.number("factor", 1.0, low=1e-3) if kind != "default" else 1.0
    partial = section.number("partial_rotary_factor", 1.0)
    if kind not in ("default", "linear", "proportional"):
        raise section.fault(f"scales its rotary embedding by {kind!r}, which is not supported")
    if partial > 1.0 or (partial != 1.0 and kind != "proportional"):
        raise section.fault(f"rotates {partial:g} of each head with {kind!r} rotary embedding, which is not supported")
    section.refuse_unread(("factor",) if kind == "default" else ())
    return Rope(theta, dim, 2 * int(partial * dim // 2), factor)
