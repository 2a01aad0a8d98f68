"""Parameters of a wrong type or range are refused in a sentence; NumPy's numbers and lists are taken."""

from __future__ import annotations

import numpy as np
import pytest

from outrider import SamplingParams
from outrider.errors import UsageError


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_tokens": "4"}, "max_tokens must be a whole number, not '4' (str)"),
        ({"max_tokens": None}, "max_tokens must be a whole number, not None"),
        ({"max_tokens": 4.0}, "max_tokens must be a whole number, not 4.0 (float)"),
        ({"seed": True}, "seed must be a whole number, not True (bool)"),
        ({"temperature": "hot"}, "temperature must be a number, not 'hot' (str)"),
        ({"temperature": float("nan")}, "temperature must lie between 0 and 100, not nan"),
        ({"top_k": -2}, "top_k must be 0 (all) or more, not -2"),
        ({"n": 0}, "n must lie between 1 and 64, not 0"),
        ({"ignore_end": 1}, "ignore_end must be True or False, not 1 (int)"),
        ({"logprobs": "all"}, "logprobs must be a whole number, not 'all' (str)"),
        ({"stop": 5}, "stop must be a text or a list of texts, not 5 (int)"),
        ({"stop": ["a", 5]}, "stop must be a text or a list of texts, not ['a', 5] (list)"),
        ({"stop_token_ids": 5}, "stop_token_ids must be a list of token ids, not 5 (int)"),
        ({"stop_token_ids": ["</s>"]}, "an entry of stop_token_ids must be a whole number, not '</s>' (str)"),
        ({"logit_bias": [5]}, "logit_bias must be a dict of token ids and numbers, not [5] (list)"),
        ({"logit_bias": {"a": 1.0}}, "a token id in logit_bias must be a whole number, not 'a' (str)"),
        ({"logit_bias": {5: "much"}}, "the logit_bias of token 5 must be a number, not 'much' (str)"),
        ({"grammar": "[a-z]+"}, "grammar must be a Grammar, such as Grammar.json_schema(...), not '[a-z]+' (str)"),
        ({"draft": "some"}, 'draft must be "auto", "off" or a number from 0 to 63, not \'some\''),
    ],
)
def test_what_is_wrong_is_said(wrong, said):
    with pytest.raises(UsageError) as problem:
        SamplingParams(**wrong)
    assert str(problem.value) == said


def test_what_other_libraries_make_is_taken():
    params = SamplingParams(
        max_tokens=np.int64(4), temperature=np.float32(0.5), stop=["a"], stop_token_ids=np.array([3, 4]), top_k=-1
    )
    assert (params.max_tokens, params.temperature, params.stop, params.top_k) == (4, 0.5, ("a",), 0)
    assert params.stop_token_ids == (3, 4)
    assert type(params.max_tokens) is int
    assert SamplingParams(stop=None, logit_bias=None, stop_token_ids=()).stop == ()


def test_each_answer_has_a_seed_of_its_own():
    one = SamplingParams(seed=5)
    assert one.each() == [one]
    several = SamplingParams(seed=2**64 - 1, n=3, temperature=1.0).each()
    assert [params.seed for params in several] == [2**64 - 1, 0, 1]
    assert {(params.n, params.temperature) for params in several} == {(1, 1.0)}
