#!/usr/bin/env python3
"""Holds the languages to one suite and one API, and docs/bindings.md to what they do.

usage: scripts/bindings.py [--write]

Conformance: the reports that the runners of tests/conformance wrote to conformance/ in the target folder, one a
language. A case without a line there failed. Parity: each function of include/carat.abi has to be called by each
binding, and each field of its structs used, or there is a reason below. All becomes part of docs/bindings.md, which
`--write` writes; without it a difference is a failure.

A language that `make test` cannot run (Swift, which needs root) may have no report: its column then stays what it was.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
PAGE = ROOT / "docs/bindings.md"

# Name in reports: title, and where its calls of carat.h are; nothing where the language does not go through C.
LANGUAGES = {
    "rust": ("Rust", None),
    "c": ("C", "tests/c/*.c"),
    "cpp": ("C++", "include/carat.hpp"),
    "kotlin": ("Kotlin", "bindings/kotlin"),
    "swift": ("Swift", "bindings/swift"),
    "python": ("Python", "bindings/python"),
}
MAY_HAVE_NO_REPORT = {"swift"}
NOT_THE_BINDING = {"tests", "Tests", "test", "bench", "Bench", "StreamBench", "examples", "Examples", "docs"}
SOURCES = {".c", ".h", ".hpp", ".cpp", ".rs", ".kt", ".swift", ".py"}

# What in Rust a function of carat.h is a skin over. In brackets: what takes its place where Rust has no need of it.
RUST = {
    "carat_abi_version": "(Cargo's versions)",
    "carat_cancel_clone": "CancelToken (Clone)",
    "carat_cancel_free": "(Drop)",
    "carat_cancel_is_set": "CancelToken::is_cancelled",
    "carat_cancel_new": "CancelToken::new",
    "carat_cancel_set": "CancelToken::cancel",
    "carat_chat_render": "chat::render",
    "carat_conversation_dropped": "Reply::dropped",
    "carat_conversation_edit_last": "Conversation::edit_last",
    "carat_conversation_free": "(Drop)",
    "carat_conversation_into_session": "Conversation::into_session",
    "carat_conversation_load": "Conversation::load",
    "carat_conversation_n_turns": "Conversation::turns",
    "carat_conversation_new": "Conversation::new",
    "carat_conversation_regenerate": "Conversation::regenerate",
    "carat_conversation_reset": "Conversation::reset",
    "carat_conversation_respond": "Conversation::respond",
    "carat_conversation_resume": "Conversation::resume",
    "carat_conversation_save": "Conversation::save",
    "carat_conversation_send": "Conversation::send",
    "carat_conversation_set_policy": "Conversation::set_context_policy",
    "carat_conversation_set_system": "Conversation::set_system",
    "carat_conversation_system": "Conversation::system",
    "carat_conversation_tokens": "Conversation::tokens",
    "carat_conversation_trim": "Conversation::trim",
    "carat_conversation_turn": "Conversation::turns",
    "carat_decoder_flush": "StreamDecoder::flush",
    "carat_decoder_free": "(Drop)",
    "carat_decoder_new": "StreamDecoder::new",
    "carat_decoder_push": "StreamDecoder::push",
    "carat_detokenize": "Tokenizer::decode",
    "carat_error_free": "(Drop)",
    "carat_error_kind": "Error::kind",
    "carat_error_message": "Error (Display)",
    "carat_error_nearest": "Error::Rewind",
    "carat_error_status": "Error",
    "carat_generate_options_init": "GenerateOptions (Default)",
    "carat_isa_available": "Isa::is_available",
    "carat_isa_name": "Isa::name",
    "carat_limits_init": "Limits",
    "carat_limits_measure": "Limits::measure",
    "carat_logits_data": "Logits (Deref)",
    "carat_logits_free": "(Drop)",
    "carat_model_free": "(Drop)",
    "carat_model_get_info": "Model::config",
    "carat_model_info_init": "Config",
    "carat_model_metadata": "Gguf::metadata",
    "carat_model_open": "ModelBuilder::open",
    "carat_model_open_bytes": "ModelBuilder::open_storage",
    "carat_model_open_fd": "Storage::from_fd",
    "carat_model_options_init": "Model::builder",
    "carat_model_plan": "Model::plan",
    "carat_model_plan_session": "Model::plan_session",
    "carat_model_special_tokens": "Tokenizer::start_of_turn",
    "carat_model_tensor": "Gguf::tensors",
    "carat_plan_init": "Plan",
    "carat_session_fork": "Session::fork",
    "carat_session_free": "(Drop)",
    "carat_session_generate": "Session::generate",
    "carat_session_len": "Session::len",
    "carat_session_load": "Session::load",
    "carat_session_logits": "Session::keep_logits",
    "carat_session_new": "Session::new",
    "carat_session_options_init": "SessionOptions (Default)",
    "carat_session_prefill": "Session::prefill_with",
    "carat_session_prefill_each": "Session::prefill_each",
    "carat_session_save": "Session::save",
    "carat_session_score": "Session::score",
    "carat_session_step": "Session::step_with",
    "carat_session_tokens": "Session::tokens",
    "carat_session_trim": "Session::trim",
    "carat_session_truncate": "Session::truncate",
    "carat_special_tokens_init": "SpecialIds",
    "carat_status_name": "Error (Debug)",
    "carat_summary_init": "Summary",
    "carat_tensor_info_init": "TensorInfo",
    "carat_token_bytes": "Tokenizer::piece",
    "carat_token_id": "Tokenizer::id_of",
    "carat_token_kind": "Tokenizer::kind",
    "carat_tokenize": "Tokenizer::encode_with",
    "carat_tokenize_options_init": "EncodeOptions (Default)",
    "carat_version": "(Cargo's versions)",
}

passed = failed = 0


def check(name, problems):
    """Counts a check, which holds where there are no problems."""
    global passed, failed
    for problem in problems:
        print(f"  {problem}")
    print(f"{'FAILED' if problems else 'ok    '} {name}")
    if problems:
        failed += 1
    else:
        passed += 1


def exists(language):
    place = LANGUAGES[language][1]
    return place is None or any(ROOT.glob(place))


def suite():
    """The cases of each group, by file."""
    files = sorted((ROOT / "tests/conformance").glob("*.json"))
    return {f.stem: json.loads(f.read_text(encoding="utf-8")) for f in files}


def report(language):
    """What became of each case, by its name: `pass`, or why not. None where there is no report."""
    path = TARGET / "conformance" / language
    if not path.exists():
        return None
    became = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        verdict, _, rest = line.partition(" ")
        name, _, why = rest.partition(": ")
        if verdict in ("pass", "FAIL", "n/a"):
            became[name] = verdict if verdict == "pass" else f"{verdict} {why}"
    return became


def conformance(groups):
    """The cells of each language, by group, and what failed or cannot be expressed."""
    cells, notes = {}, []
    for language, (title, _) in LANGUAGES.items():
        if not exists(language):
            continue
        became = report(language)
        if became is None and language in MAY_HAVE_NO_REPORT:
            continue
        if became is None:
            check(f"conformance of {title}", [f"no report {TARGET / 'conformance' / language}"])
            continue
        problems, cells[language] = [], {}
        for group, cases in groups.items():
            good = 0
            for case in cases:
                name = case["name"]
                excuse = case.get("not_in", {}).get(language)
                verdict = became.pop(name, "FAIL no line in the report")
                if verdict == "pass":
                    good += 1
                elif excuse and verdict.startswith("n/a"):
                    notes.append(f"{title}, `{name}`: {excuse}.")
                else:
                    problems.append(f"{name}: {verdict}")
                    notes.append(f"**{title} fails `{name}`.**")
            cells[language][group] = f"{good}" if good == len(cases) else f"{good} of {len(cases)}"
        problems += [f"{name}: no case of the suite" for name in became]
        check(f"conformance of {title}", problems)
    return cells, notes


# Fields that no binding has a use for, of whatever struct.
NO_FIELDS_OF_OURS = {"struct_size", "reserved"}
# Fields that a language does not name, and why: by language, then by struct and field, or by struct alone.
HANDED_OUT = "is handed out as C has it"
BY_POSITION = "is made by the order of its fields"
UNNAMED_FIELDS = {
    "cpp": {
        "carat_limits": HANDED_OUT,
        "carat_logit_bias": "is given as C has it",
        "carat_model_info": HANDED_OUT,
        "carat_plan": HANDED_OUT,
        "carat_special_tokens": HANDED_OUT,
        "carat_summary": HANDED_OUT,
        "carat_text": BY_POSITION,
        "carat_token_score": HANDED_OUT,
    },
    "python": {"carat_logit_bias": BY_POSITION, "carat_text": BY_POSITION},
}
# What hands out a struct that sources need not name.
HELD_BY = {"carat_token_log_prob": "carat_piece"}


def without_comments(text):
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return re.sub(r"(//|#(?!\[|include|define)).*", "", text)


def sources(place):
    """The texts of a binding's sources, without comments."""
    if "*" in place:
        files = list(ROOT.glob(place))
    elif (ROOT / place).is_file():
        files = [ROOT / place]
    else:
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", place], cwd=ROOT, text=True,
                                capture_output=True, check=True)
        files = [ROOT / f for f in listed.stdout.splitlines()]
        files = [f for f in files if f.exists() and not NOT_THE_BINDING & set(f.relative_to(ROOT / place).parts)]
    return [without_comments(f.read_text(encoding="utf-8")) for f in files if f.suffix in SOURCES]


def calls(place):
    """The functions of carat.h that the sources of a binding call."""
    found = set()
    for text in sources(place):
        # In Rust a declaration is no call.
        found.update(re.findall(r"(?<!fn )\b(carat_\w+)\b", text))
        # Python makes structs by the name of their type.
        if 'f"carat_{name}_init"' in text:
            found.add("carat_{name}_init")
        found.update(f"quoted {word}" for word in re.findall(r'"([a-z_]+)"', text))
    return found


def uses_field(language, text, struct, field):
    """Whether a source that is about a struct uses a field of it."""
    short = struct.removeprefix("carat_")
    about = f"({struct}|{HELD_BY.get(struct, struct)})"
    if language == "python":
        # A class of the same name, whose fields are those of the struct.
        name = "".join(word.capitalize() for word in short.split("_"))
        alike = re.search(rf"^class {name}\(.*?(?=^\S|\Z)", text, re.M | re.S)
        if alike and re.search(rf"^    {field}: ", alike[0], re.M):
            return True
        for given in re.findall(rf'\bput\(\s*struct\("{short}"\).*?(?=\n\n|\Z)', text, re.S):
            if re.search(rf"\b{field}=", given):
                return True
    if not re.search(rf'\b{about}(_init|_fn)?\b|"{short}"', text):
        return False
    # A member that is read or written, of something that is not the language's own object.
    ways = [rf"(?<!\bself)(\.|->){field}\b"]
    if language == "kotlin":
        # A struct of Rust is made with the names of its fields.
        ways.append(rf"{struct} \{{[^}}]*\b{field}\b")
    if language == "swift":
        ways.append(rf"{struct}\([^)]*\b{field}:")
    if language == "python":
        ways.append(rf"\bput\(c, (.*, )?{field}=")
    return any(re.search(way, text) for way in ways)


def fields_of(abi):
    """The fields of each struct of carat.h."""
    fields = {}
    for struct, field in re.findall(r"^field (carat_\w+)\.(\w+):", abi, re.M):
        if field not in NO_FIELDS_OF_OURS:
            fields.setdefault(struct, []).append(field)
    return fields


def field_parity(fields):
    """Checks that each language uses each field; says why where it does not."""
    notes = []
    for language, (title, place) in LANGUAGES.items():
        # C has the structs themselves.
        if place is None or language == "c" or not exists(language):
            continue
        texts, problems = sources(place), []
        reasons = dict(UNNAMED_FIELDS.get(language, {}))
        for struct, names in fields.items():
            unused = [name for name in names if not any(uses_field(language, t, struct, name) for t in texts)]
            why = reasons.pop(struct, None)
            if why and not unused:
                problems.append(f"{struct} is excused, and all of it is used")
            if why:
                notes.append(f"{title}, `{struct}`: {why}.")
                continue
            for name in unused:
                why = reasons.pop(f"{struct}.{name}", None)
                if why:
                    notes.append(f"{title}, `{struct}.{name}`: {why}.")
                else:
                    problems.append(f"{struct}.{name} is not used")
        problems += [f"{name} is excused, and is used or is no field" for name in reasons]
        check(f"parity of {title} in fields", problems)
    return notes


def parity(functions):
    """The languages that call each function."""
    rows = {f: {} for f in functions}
    rust = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "src").rglob("*.rs"))
    problems = [f"{f} is said to be in Rust, and is no function of carat.h" for f in RUST if f not in rows]
    for f in functions:
        item = RUST.get(f)
        rows[f]["rust"] = item.strip("()") if item and item.startswith("(") else f"`{item}`"
        if item is None:
            problems.append(f"{f}: nothing in Rust")
        elif not item.startswith("("):
            # The last part is a function, a field, a variant or a type.
            last = re.sub(r" \(.*", "", item).split("::")[-1]
            if not re.search(rf"pub (fn|struct|enum|type) {last}\b|pub {last}:|^    {last} \{{", rust, re.M):
                problems.append(f"{f}: no {item} in src")
    check("parity of Rust", problems)
    for language, (title, place) in LANGUAGES.items():
        if place is None or not exists(language):
            continue
        found = calls(place)
        problems = []
        for f in functions:
            made = re.fullmatch(r"carat_(\w+)_init", f)
            by_name = made and "carat_{name}_init" in found and f"quoted {made[1]}" in found
            if f in found or by_name:
                rows[f][language] = "✓"
            else:
                rows[f][language] = "**no**"
                problems.append(f"{f} is not called")
        check(f"parity of {title}", problems)
    return rows


def table(head, rows):
    lines = [f"| {' | '.join(head)} |", f"|---{'|---' * (len(head) - 1)}|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def kept_column(page, title):
    """A column of the page's first table as it is, by group."""
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")]
    head = next((r for r in rows if title in r and "cases" in r), None)
    if head is None:
        return {}
    at, n = head.index(title), head.index("cases")
    return {r[0]: (r[n], r[at]) for r in rows if len(r) == len(head)}


def part(page, name, text):
    """The page with what stands between two marks changed."""
    begin, end = f"<!-- {name}: made by scripts/bindings.py -->\n", f"<!-- end of {name} -->"
    before, found, rest = page.partition(begin)
    if not found:
        sys.exit(f"{PAGE} has no part {name}")
    return before + begin + "\n" + text + "\n\n" + end + rest.partition(end)[2]


def main():
    groups = suite()
    abi = (ROOT / "include/carat.abi").read_text(encoding="utf-8")
    functions = re.findall(r"^function (carat_\w+):", abi, re.M)
    page = PAGE.read_text(encoding="utf-8")

    cells, notes = conformance(groups)
    for language in MAY_HAVE_NO_REPORT:
        title = LANGUAGES[language][0]
        if exists(language) and language not in cells:
            kept = kept_column(page, title)
            stale = [g for g, cases in groups.items() if kept.get(g, ("", "–"))[0] != str(len(cases))]
            check(f"conformance of {title}, as it was", [f"{g} has changed: run its tests" for g in stale])
            cells[language] = {g: kept.get(g, ("", "–"))[1] for g in groups}
    head = ["group", "cases"] + [title for title, _ in LANGUAGES.values()]
    rows = [[g, str(len(cases))] + [cells.get(x, {}).get(g, "–") for x in LANGUAGES] for g, cases in groups.items()]
    made = table(head, rows)
    if notes:
        made += "\n\n" + "\n".join(f"* {note}" for note in notes)
    new = part(page, "conformance", made)

    head = ["function"] + [title for title, _ in LANGUAGES.values()]
    called = parity(functions)
    rows = [[f"`{f}`"] + [called[f].get(x, "–") for x in LANGUAGES] for f in functions]
    new = part(new, "parity", table(head, rows))
    fields = fields_of(abi)
    count = f"{sum(map(len, fields.values()))} fields of {len(fields)} structs."
    new = part(new, "fields", "\n".join([count, "", *[f"* {note}" for note in field_parity(fields)]]))

    if "--write" in sys.argv[1:]:
        PAGE.write_text(new, encoding="utf-8")
    else:
        stale = [] if new == page else [f"{PAGE.relative_to(ROOT)} is not what scripts/bindings.py --write makes"]
        check("the page of the bindings is true", stale)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
