"""Models: opening, the tokenizer, what is in the file."""

import copy
import gc
import logging
import mmap
import os
import pickle

import pytest
from conftest import DATA, TINY

import carat


def test_info_tensors_and_metadata_tell_what_is_in_the_file(tiny):
    info = tiny.info
    assert info.arch is carat.Arch.GEMMA3
    assert info.file_bytes == TINY.stat().st_size
    assert info.threads == 2
    assert info.memory_lock is carat.MemoryLock.NOT_LOCKED
    tensors = tiny.tensors()
    assert len(tensors) == info.n_tensors
    embedding = next(t for t in tensors if t.name == "token_embd.weight")
    assert embedding.dims == (info.d_model, info.vocab)
    assert 0 < embedding.offset < embedding.offset + embedding.size <= info.file_bytes
    assert tiny.metadata("general.architecture") == "gemma3"
    with pytest.raises(carat.FileError) as e:
        tiny.metadata("no.such.key")
    assert e.value.status is carat.Status.METADATA
    assert "no.such.key" in str(e.value)


def test_paths_are_text_bytes_or_pathlib():
    for path in (str(TINY), os.fsencode(TINY), TINY):
        with carat.Model(path, threads=1) as model:
            assert not model.closed
        assert model.closed


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    path = tmp_path / "none.gguf"
    with pytest.raises(FileNotFoundError) as e:
        carat.Model(path)
    error = e.value
    assert isinstance(error, carat.FileError)
    assert error.status is carat.Status.IO
    assert error.kind is carat.Kind.FILE
    assert error.filename == str(path)
    assert "none.gguf" in str(error)
    with pytest.raises(FileNotFoundError):
        carat.plan(path)


def test_errors_are_values_that_can_be_pickled(tmp_path, session):
    with pytest.raises(carat.Error) as e:
        carat.Model(tmp_path / "none.gguf")
    for error in (e.value, carat.RewindError("no", 16, 0)):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.status) == (type(error), str(error), error.status)
        assert copy.copy(error).kind is error.kind


@pytest.mark.parametrize(
    ("content", "status"), [(b"", "FORMAT"), (b"GGUF" + bytes(8), "FORMAT"), (b"x" * 100, "FORMAT")]
)
def test_a_file_that_is_none_is_a_file_error(tmp_path, content, status):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(carat.FileError) as e:
        carat.Model(path)
    assert not isinstance(e.value, OSError)
    assert e.value.status.name in (status, "UNSUPPORTED")


def test_an_option_that_cannot_be_is_a_value_error():
    for options in ({"threads": -1}, {"threads": 1 << 40}, {"isa": "mmx"}, {"isa": 77}, {"tokenizer_engine": "none"}):
        with pytest.raises(ValueError, match="."):
            carat.Model(TINY, **options)
    with pytest.raises(TypeError):
        carat.Model(TINY, thread=1)
    with pytest.raises(TypeError):
        carat.Model.open_bytes(b"", thread=1)


def test_a_part_of_a_descriptor(tmp_path):
    path = tmp_path / "asset"
    path.write_bytes(b"x" * 1001 + TINY.read_bytes() + b"y" * 99)
    with path.open("rb") as file:
        model = carat.Model.open_fd(file.fileno(), 1001, TINY.stat().st_size, threads=1)
        with pytest.raises(ValueError, match="."):
            carat.Model.open_fd(file, 0, 1 << 40)
        with pytest.raises(ValueError, match="."):
            carat.Model.open_fd(file, -1)
    assert model.detokenize(model.tokenize("as before")) == "as before"
    with TINY.open("rb") as file:
        assert carat.Model.open_fd(file).info.n_tensors == model.info.n_tensors


def test_a_file_in_memory_is_kept_until_all_that_use_it_are_gone():
    data = bytearray(TINY.read_bytes())
    model = carat.Model.open_bytes(data, threads=1)
    session = carat.Session(model, context=32)
    model.close()
    with pytest.raises(BufferError):
        data.append(0)
    session.prefill([2, 300])
    session.close()
    data.append(0)
    with pytest.raises(carat.FileError):
        carat.Model.open_bytes(bad := bytearray(b"no model at all"))
    gc.collect()  # Of the error's traceback.
    bad.append(0)
    with TINY.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        model = carat.Model.open_bytes(mapped, threads=1)
        model.close()


def test_progress_is_told_and_may_stop():
    seen = []
    carat.Model(TINY, preload=True, progress=lambda done, total: seen.append((done, total))).close()
    assert seen
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]
    with pytest.raises(carat.CancelledError):
        carat.Model(TINY, preload=True, progress=lambda done, total: False)
    with pytest.raises(ZeroDivisionError):
        carat.Model(TINY, preload=True, progress=lambda done, total: 1 // 0)


def test_a_token_that_was_set_before_stops_opening_and_tokenizing(tiny):
    token = carat.CancelToken()
    other = copy.copy(token)
    assert not other.is_cancelled
    token.cancel()
    assert token.is_cancelled
    assert other.is_cancelled
    with pytest.raises(carat.CancelledError) as e:
        carat.Model(TINY, cancel=other)
    assert e.value.kind is carat.Kind.CANCELLED
    with pytest.raises(carat.CancelledError):
        tiny.tokenize("word " * 100_000, cancel=token)
    with pytest.raises(carat.CancelledError):
        tiny.render_chat([("user", "word " * 100_000)], cancel=token)


def test_log_messages_go_to_logging_or_to_a_function(caplog):
    with caplog.at_level(logging.DEBUG, "carat"):
        carat.Model(TINY, threads=1).close()
    assert [r for r in caplog.records if r.name == "carat"]
    seen = []
    model = carat.Model(TINY, threads=1, log=lambda level, text: seen.append((level, text)))
    assert seen
    assert all(level in (logging.INFO, logging.WARNING) and isinstance(text, str) for level, text in seen)
    model.close()


def test_a_plan_is_known_before_anything_is_loaded(tiny):
    plan = carat.plan(TINY, threads=2, context=256)
    parts = plan.file + plan.kv_cache + plan.scratch + plan.snapshots + plan.tokenizer + plan.other
    assert plan.total == parts
    assert plan.file == TINY.stat().st_size
    assert plan.available is None or plan.available > 0
    assert tiny.plan(context=256).kv_cache == plan.kv_cache
    assert tiny.plan(context=256, kv="q8_0").kv_cache < plan.kv_cache
    assert carat.plan(TINY, context=32).total < plan.total
    with pytest.raises(TypeError):
        carat.plan(TINY, contxt=1)
    with pytest.raises(ValueError, match="."):
        tiny.plan(kv="q1")


def test_instruction_sets_have_names():
    assert carat.Isa.AVX2.label == "avx2"
    assert carat.Isa.SCALAR.available
    with carat.Model(TINY, isa="scalar") as model:
        assert model.info.isa is carat.Isa.SCALAR


def test_limits_are_measured():
    limits = carat.measure_limits(threads=1, isa="scalar")
    assert all(value > 1e6 for value in limits)
    with pytest.raises(ValueError, match="."):
        carat.measure_limits(threads=1000)


TEXT = "Hello, world! é🙂 <start_of_turn>"


def test_text_to_ids_and_back(tiny):
    special = tiny.special_tokens()
    ids = tiny.tokenize(TEXT)
    assert tiny.detokenize(ids) == TEXT
    assert tiny.tokenize(TEXT.encode()) == ids
    marked = tiny.tokenize(TEXT, special=True, bos=True)
    assert (marked[0], marked[-1]) == (special.bos, special.start_of_turn)
    assert tiny.token_id("<start_of_turn>") == special.start_of_turn
    assert tiny.token_id("no such piece") is None
    assert tiny.token_kind(special.start_of_turn) is carat.PieceKind.CONTROL
    assert tiny.token_bytes(special.start_of_turn) == b"<start_of_turn>"
    assert b"".join(map(tiny.token_bytes, ids)).decode() == TEXT
    assert tiny.tokenize("") == []
    assert tiny.tokenize(b"\xff") == tiny.tokenize("\ufffd")
    decoder = tiny.decoder()
    assert "".join(map(decoder.push, ids)) + decoder.flush() == TEXT
    long = "many words, " * 20_000
    assert tiny.detokenize(tiny.tokenize(long)) == long


@pytest.mark.parametrize("bad", [-1, 1 << 31, 1 << 32, 1 << 70])
def test_ids_that_are_none(tiny, bad):
    for call in (tiny.token_bytes, tiny.token_kind, lambda i: tiny.detokenize([i]), lambda i: tiny.decoder().push(i)):
        with pytest.raises(ValueError, match=".") as e:
            call(bad)
        assert e.value.status is carat.Status.TOKEN_OUT_OF_RANGE
    with pytest.raises(TypeError):
        tiny.detokenize([1.5])
    with pytest.raises(TypeError):
        tiny.detokenize(["a"])


def test_chats_are_rendered_in_gemmas_turns(tiny):
    special = tiny.special_tokens()
    ids = tiny.render_chat([("system", "Be brief."), ("user", "Hi"), (carat.Role.MODEL, "Yes?"), ("user", "No.")])
    assert ids[:2] == [special.bos, special.start_of_turn]
    assert ids.count(special.start_of_turn) == 4
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    last = carat.Turn(carat.Role.USER, "No.")
    assert tiny.render_chat([*messages, last]) == tiny.render_chat([("user", "Hi"), ("model", "Yes?"), last])
    with pytest.raises(carat.UsageError) as e:
        tiny.render_chat([("model", "Hi")])
    assert e.value.status is carat.Status.CHAT
    with pytest.raises(ValueError, match="'user'"):
        tiny.render_chat([("nobody", "Hi")])


def test_what_is_closed_says_so(tiny):
    model = carat.Model(TINY, threads=1)
    decoder = model.decoder()
    model.close()
    model.close()
    calls = [
        lambda: model.info,
        lambda: model.tokenize("a"),
        lambda: model.tensors(),
        lambda: carat.Session(model),
        lambda: model.plan(),
        lambda: model.decoder(),
        lambda: carat.Session.load(model, DATA / "talk-1.carat"),
        model.__enter__,
    ]
    for call in calls:
        with pytest.raises(carat.ClosedError, match="the model was closed"):
            call()
    ids = tiny.tokenize("still")
    assert "".join(map(decoder.push, ids)) + decoder.flush() == "still"
    with decoder:
        pass
    with pytest.raises(ValueError, match="the decoder was closed"):
        decoder.push(2)
    gc.collect()
