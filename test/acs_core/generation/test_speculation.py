"""Drafts change the number of forwards, and nothing that is written."""

from dataclasses import replace

import numpy as np
import pytest

import acs_core.generation.generate as sampling
from acs_core.attention import AttentionNeeds, capture
from acs_core.errors import Cancelled
from acs_core.generation.candidates import find_candidates
from acs_core.generation.cuda_graph import static_decoder
from acs_core.generation.decoding import CudaGraphDecoder, EagerDecoder
from acs_core.generation.first_box import FirstBoxComplete
from acs_core.generation.generate import draw_more, generate
from acs_core.generation.prefill import prefill
from acs_core.generation.sample import greedy_response, sample_each, sample_responses
from acs_core.generation.speculation import MOST, AnswerDrafts, drafts_of
from acs_core.generation.token_sampler import TeacherForcing
from acs_core.geometry import Box
from acs_core.grounder import Grounder
from acs_core.image import read_image
from acs_core.types import Candidate, SamplingConfig

NEEDS = AttentionNeeds(maps=True, all_entropies=True)
PHRASES = ["key", "dog", "a very small dog behind the key"]


class Rehearsed:
    """Drafts from known responses: each as many tokens as chance wants, some of them wrong."""

    def __init__(self, responses, seed=0):
        self.responses, self.chance, self.learned = responses, np.random.default_rng(seed), 0

    def draft(self, ids, phrase, most=MOST):
        known = [r[len(ids) :] for r in self.responses if tuple(r[: len(ids)]) == tuple(ids)]
        if not known:
            return []
        draft = list(known[self.chance.integers(len(known))][: min(most, int(self.chance.integers(0, 9)))])
        if draft and self.chance.random() < 0.5:
            draft[self.chance.integers(len(draft))] = 5
        return draft

    def learn(self, responses, finished, phrase):
        self.learned += len(responses)


@pytest.fixture
def forwards(monkeypatch):
    """The tokens that each forward fed to each row; ``forwards.recorded`` makes sampling use static buffers."""
    fed = []

    def noting(decoder):
        real = decoder.advance
        decoder.advance = lambda tokens: fed.append({row: len(ids) for row, ids in tokens.items()}) or real(tokens)
        return decoder

    def steps(lvlm, state, n, limit):
        if steps.recorded:
            return noting(CudaGraphDecoder(static_decoder(lvlm, state, n, limit), state))
        return noting(EagerDecoder(lvlm, state, n))

    steps.recorded, steps.fed = False, fed
    monkeypatch.setattr(sampling, "make_decoder", steps)
    return steps


def compare(lvlm, prompts, plain, drafted):
    """Both wrote the same tokens, with the same certainty and attention."""
    for prompt, a, b in zip(prompts, plain, drafted, strict=True):
        assert (a.response_ids, a.finished) == (b.response_ids, b.finished)
        for name in ("token_entropy", "token_logprob"):
            for x, y in zip(getattr(a, name), getattr(b, name), strict=True):
                np.testing.assert_allclose(x, y, atol=1e-3)
        candidates = [
            Candidate(Box(0, 0, 1, 1), "", i, 0, tuple(min(k, len(ids) - 2) for k in (0, 3, 20, 69)))
            for i, ids in enumerate(a.response_ids)
            if len(ids) > 1
        ]
        for needs in (NEEDS, replace(NEEDS, step="consuming")):
            mine, theirs = (capture(lvlm, prompt, s, candidates, needs) for s in (a, b))
            np.testing.assert_allclose(mine.maps, theirs.maps, atol=1e-5)
            np.testing.assert_allclose(mine.entropy, theirs.entropy, atol=1e-3)


@pytest.mark.parametrize("recorded", [False, True], ids=["eager", "recorded"])
def test_rows_that_accept_and_refuse_drafts_write_the_same(lvlm, picture, forwards, recorded):
    config = SamplingConfig(num_samples=5, max_new_tokens=75, temperature=1.2, seed=7)
    prompt = lvlm.prepare(picture, "key")
    plain = draw_more(lvlm, prefill(lvlm, [prompt]), config, [7], range(5), token_statistics=True)
    slow, forwards.recorded = len(forwards.fed), recorded
    forwards.fed.clear()
    known = Rehearsed(plain[0].response_ids)
    state = prefill(lvlm, [prompt], drafts=known)
    fast = draw_more(lvlm, state, config, [7], range(5), token_statistics=True, drafts=known)
    compare(lvlm, [prompt], plain, fast)
    assert len(forwards.fed) < 0.7 * slow and known.learned == 5
    assert len({count for fed in forwards.fed for count in fed.values()}) > 4  # rows of many different lengths
    lvlm.graphs.kept.clear()


@pytest.mark.parametrize("recorded", [False, True], ids=["eager", "recorded"])
def test_several_phrases_and_several_pictures(lvlm, picture, forwards, recorded):
    config = SamplingConfig(num_samples=3, max_new_tokens=30, temperature=1.2, seed=1)
    prompts = lvlm.prepare_many(picture, PHRASES)
    plain = draw_more(lvlm, prefill(lvlm, prompts), config, [1, 2, 3], range(3), token_statistics=True)
    known = Rehearsed([ids for samples in plain for ids in samples.response_ids])
    forwards.recorded = recorded
    state = prefill(lvlm, prompts, drafts=known)
    assert any(state.openings)
    fast = draw_more(lvlm, state, config, [1, 2, 3], range(3), token_statistics=True, drafts=known)
    compare(lvlm, prompts, plain, fast)
    some = draw_more(lvlm, state.only([2]), config, [3], range(3), token_statistics=True, drafts=known)
    assert some[0].response_ids == plain[2].response_ids
    alone = [prefill(lvlm, [lvlm.prepare(picture, phrase)], drafts=known) for phrase in PHRASES]
    together = sample_each(lvlm, alone, config, [1, 2, 3], token_statistics=True)
    assert [s.response_ids for s in together] == [s.response_ids for s in plain]
    lvlm.graphs.kept.clear()


SHIPPED = ["tiny-internvl", "tiny-qwen2.5-vl"]
SAMPLE = read_image("docs/sample.png")
ANSWER = '[{"bbox_2d": [12, 34, 567, 89], "label": "key"}'


@pytest.fixture(scope="module", params=SHIPPED)
def grounder(request):
    return Grounder.from_pretrained(request.param, selector="acs-free", device="cpu")


def seen(result):
    return [r.text for r in result.responses], [c.box for c in result.candidates], result.skipped


def test_calls_of_the_embedded_models_are_the_same_with_fewer_forwards(grounder, forwards):
    """Answers, boxes and scores; one phrase, several, `auto`, greedy; at least 1.5 times fewer forwards."""
    counts = dict.fromkeys((False, True), 0)
    for seed in range(3):
        for auto in (False, True):
            results = {}
            for speculation in (False, True):
                forwards.fed.clear()
                config = SamplingConfig(seed=seed, auto=auto, speculation=speculation)
                results[speculation] = grounder.ground_many(SAMPLE, ["key", "mug"], sampling=config, multiple=auto)
                counts[speculation] += len(forwards.fed)
            for plain, drafted in zip(results[False], results[True], strict=True):
                assert seen(plain) == seen(drafted)
                scores = [[d.score for d in result.detections] for result in (plain, drafted)]
                np.testing.assert_allclose(*scores, atol=1e-4)
    assert counts[True] * 1.5 <= counts[False]
    prompt = grounder.lvlm.prepare(SAMPLE, "key")
    same = [greedy_response(grounder.lvlm, prompt, speculation=s).response_ids for s in (False, True)]
    assert same[0] == same[1] and same[0][0]


def test_several_boxes_and_labels(grounder, forwards):
    """Forced answers: what a draft learned from one box serves the next, and what it got wrong is written as given."""
    lvlm = grounder.lvlm
    texts = [
        ANSWER + "]",
        ANSWER + ", " + ANSWER[1:] + ", " + ANSWER[1:] + "]",
        "[]",
        ANSWER.replace("key", "mug") + "]",
    ]
    forced = [lvlm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    prompt, config = lvlm.prepare(SAMPLE, "key"), SamplingConfig(num_samples=4)
    lvlm.learned.clear()
    counts, written = [], []
    for speculation in (False, True, True):
        forwards.fed.clear()
        written.append(
            sample_responses(
                lvlm, prompt, replace(config, speculation=speculation), forced=forced, token_statistics=True
            )
        )
        counts.append(len(forwards.fed))
    assert [list(ids) for ids in written[1].response_ids] == forced and all(written[1].finished)
    for again in written[1:]:
        compare(lvlm, [prompt], written[:1], [again])
    assert [len(find_candidates(lvlm, prompt, w)[0]) for w in written] == [5, 5, 5]
    assert counts[0] > 1.2 * counts[1] > 1.5 * counts[2]
    lvlm.learned.clear()


def test_a_response_ends_with_its_first_box(grounder, forwards):
    """Drafts or not: the same tokens; other boxes, what follows, and responses without a box are as they were."""
    lvlm = grounder.lvlm
    texts = [ANSWER + ", " + ANSWER[1:] + "]", "no key", "[]", ANSWER.replace("567", "12") + ", " + ANSWER[1:] + "]"]
    forced = [lvlm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    prompt, is_complete, drafts = lvlm.prepare(SAMPLE, "key"), FirstBoxComplete(lvlm), drafts_of(lvlm)
    found = []
    for used in (None, drafts):
        state = prefill(lvlm, [prompt], drafts=used)
        draw = TeacherForcing(forced, lvlm.eos_ids[0])
        (written,) = generate(lvlm, state, draw, 4, 99, token_statistics=True, drafts=used, is_complete=is_complete)
        found.append(written)
    compare(lvlm, [prompt], found[:1], found[1:])
    decoded = [lvlm.tokenizer.decode(ids) for ids in found[0].response_ids]
    assert decoded[0] == ANSWER + ', {"bbox_2d": [' and decoded[1:3] == texts[1:3]  # "}, {"bbox_2d": [" is one token
    assert decoded[3] == texts[3]  # the first box has no area, so that the second one is the first
    assert found[0].finished == (True,) * 4
    forwards.fed.clear()
    config = SamplingConfig(temperature=1.5, top_p=1.0, seed=1, max_new_tokens=60)  # some list several boxes
    one, whole = (  # a box with the label of something else would not end a response
        grounder.ground(SAMPLE, "car", sampling=config, whole_responses=w, check_labels=False) for w in (False, True)
    )
    assert all(
        b.text.startswith(a.text) and a.num_boxes <= 1 for a, b in zip(one.responses, whole.responses, strict=True)
    )
    assert max(r.num_boxes for r in whole.responses) > 1
    several = grounder.ground(SAMPLE, "car", sampling=config, multiple=True)
    assert [r.text for r in several.responses] == [r.text for r in whole.responses]


def test_a_deadline_and_a_stop_take_effect_within_one_forward(grounder, forwards):
    lvlm, config = grounder.lvlm, SamplingConfig(num_samples=4, temperature=1.2, seed=8)
    lvlm.learned.clear()  # the drafts then begin a list of boxes, whatever was answered before
    prompt = lvlm.prepare(SAMPLE, "key")
    (whole,) = draw_more(lvlm, prefill(lvlm, [prompt]), config, [8], range(4))
    forwards.fed.clear()
    drafts = drafts_of(lvlm)
    state = prefill(lvlm, [prompt], drafts=drafts)
    (cut,) = draw_more(lvlm, state, config, [8], range(4), cut_when=lambda: len(forwards.fed) >= 2, drafts=drafts)
    assert len(forwards.fed) == 2
    assert [ids == full[: len(ids)] for ids, full in zip(cut.response_ids, whole.response_ids, strict=True)] == [
        True
    ] * 4
    assert max(map(len, cut.response_ids)) > 2 and not all(cut.finished)
    assert cut.batches[0].prefix_cache.length >= max(map(len, cut.response_ids)) - 1
    forwards.fed.clear()
    with pytest.raises(Cancelled, match="while the model was answering"):
        draw_more(lvlm, state, config, [8], range(4), should_stop=lambda: len(forwards.fed) >= 2, drafts=drafts)
    assert len(forwards.fed) == 2


@pytest.mark.parametrize("limit", [1, 2, 6])
def test_drafts_end_where_responses_do(grounder, limit):
    lvlm = grounder.lvlm
    prompt, config = lvlm.prepare(SAMPLE, "key"), SamplingConfig(num_samples=3, max_new_tokens=limit, seed=1)
    plain, drafted = (sample_responses(lvlm, prompt, replace(config, speculation=s)) for s in (False, True))
    assert plain.response_ids == drafted.response_ids and [len(ids) for ids in drafted.response_ids] == [limit] * 3
    state = prefill(lvlm, [prompt], drafts=drafts_of(lvlm))
    ids = [*state.openings[0].tokens, 5]
    (forced,) = generate(lvlm, state, TeacherForcing([ids[:1], ids], lvlm.eos_ids[0]), 2, limit)
    assert forced.response_ids == (tuple(ids[:1]), tuple(ids[:limit]))
    assert forced.finished == (limit > 1, limit > len(ids))


def test_what_is_drafted(grounder):
    tokenizer = grounder.lvlm.tokenizer
    drafts = AnswerDrafts(tokenizer, grounder.lvlm.eos_ids)

    def after(text, phrase="key", **options):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokenizer.decode(drafts.draft(ids, phrase, **options))

    box = '[{"bbox_2d": [12, 34, 567, 8901'
    assert after("") == '[{"bbox_2d": ['  # known before the first answer, and up to the first digit
    assert after(box[:-6]) == ", " and after(box) == '], "label": "key"}]'
    assert after(box, "red mug") == '], "label": "red mug"}]' and after(box, most=1) == '], "label": "'
    assert after("no such thing") == "" and after(box + '], "label": "key"}]') == ""
    assert after("x" * 500) == ""
    # A model that writes something else is followed, for other phrases too, and after a while of yet another template.
    for template in ("<box>{}</box> key.", "({}) shows one key"):
        for i in range(200):
            numbers = ", ".join(str((i * k) % 10) for k in (1, 3, 7, 9))
            drafts.learn([tokenizer(template.format(numbers), add_special_tokens=False)["input_ids"]], [True], "key")
        begin, end = template.split("{}")
        assert after("") == begin
        assert after(begin + "9, 8, 7, 6", "mug") == end.replace("key", "mug")


def test_what_is_learned_is_bounded(grounder, monkeypatch):
    monkeypatch.setattr("acs_core.generation.speculation._CONTEXTS", 300)
    drafts = AnswerDrafts(grounder.lvlm.tokenizer, grounder.lvlm.eos_ids)
    chance = np.random.default_rng(0)
    for i in range(30):
        drafts.learn([chance.integers(10, 300, 40).tolist()] * 9, [True] * 9, f"phrase {i}")
    assert len(drafts._counts) <= 300
    assert isinstance(drafts.draft([1, 2, 3], "key"), list)


def test_a_phrase_that_is_written_in_fewer_ways_than_an_earlier_one_is_not_drafted():
    class Letters:
        """A tokenizer that drops the blank before one phrase."""

        def __call__(self, text, add_special_tokens):
            return {"input_ids": [ord(c) for c in text.replace(" bb", "bb")]}

        def decode(self, ids):
            return "".join(map(chr, ids))

    drafts, written = AnswerDrafts(Letters(), [1]), [ord(c) for c in "is: a!"]
    for _ in range(3):
        drafts.learn([written], [True], "a")
    assert [drafts.draft(written[:3], phrase) for phrase in ("a", "bb")] == [written[3:], []]
