"""Small wrong changes to a kernel's source, each of a kind that people make.

The rules work on text that clang-format has laid out: binary operators have spaces around them and
template brackets have none.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# What is no code: comments, strings, preprocessor lines.
NO_CODE = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|^[ \t]*\#(?:[^\\\n]|\\.|\\\n)*""",
    re.MULTILINE | re.DOTALL,
)
# Declarations whose numbers are tuned or checked at compile time; explicit instantiations.
DECLARATION = re.compile(r"\s*(constexpr|static_assert|using|typedef|template)\b")


@dataclass(frozen=True)
class Mutant:
    """One change: `text[start:end]` of a file becomes `replacement`."""

    file: str
    rule: str
    line: int
    start: int
    end: int
    replacement: str
    before: str  # the changed lines, white space collapsed
    after: str

    def apply(self, text: str) -> str:
        return text[: self.start] + self.replacement + text[self.end :]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} ({self.rule})\n  - {self.before}\n  + {self.after}"


@dataclass(frozen=True)
class Rule:
    """Rewrites each match of a pattern in one or more ways."""

    name: str
    pattern: str
    rewrite: Callable[[re.Match], list[str]]
    in_declarations: bool = False
    in_for_headers: bool = True


def _to(*templates: str) -> Callable[[re.Match], list[str]]:
    return lambda match: [match.expand(template) for template in templates]


def _swap(pairs: dict[str, str]) -> Callable[[re.Match], list[str]]:
    swapped = pairs | {new: old for old, new in pairs.items()}
    return lambda match: [match[0].replace(match[1], swapped[match[1]])]


def _change_number(match: re.Match) -> list[str]:
    value = int(match[1])
    others = [value + 1] + ([value // 2] if value >= 4 else [])
    return [f"{other}{match[2]}" for other in others]


RULES = (
    Rule("barrier dropped", r"__sync(?:threads|warp)\([^()]*\);", _to(";")),
    Rule("fence dropped", r"__threadfence(?:_block)?\(\);", _to(";")),
    Rule(
        "mask narrowed",
        r"\b0x[fF]{8}u?\b",
        _to("0x7fffffffu", "0x0000ffffu"),
        in_declarations=True,
    ),
    Rule("shuffle changed", r"__shfl_(xor|down)_sync", _swap({"xor": "down"})),
    Rule("comparison widened or narrowed", r" (<|<=|>|>=) ", _swap({"<": "<=", ">": ">="})),
    Rule("comparison negated", r" (==|!=) ", _swap({"==": "!="})),
    Rule("and for or", r" (&&|\|\|) ", _swap({"&&": "||"})),
    # In the header of a for loop this would only give endless loops.
    Rule("accumulation to assignment", r" [-+*/|&]= ", _to(" = "), in_for_headers=False),
    Rule("sum and difference swapped", r" ([+-]) ", _swap({"+": "-"})),
    Rule("product and quotient swapped", r" ([*/]) ", _swap({"*": "/"})),
    Rule("remainder to quotient", r" % ", _to(" / ")),
    Rule("stride off by one", r" \* ([A-Za-z_]\w*)\b(?![(<:.\[])", _to(r" * (\1 + 1)")),
    Rule(
        "index off by one",
        r"(?<=[\w\])])\[([^\[\]]*[A-Za-z_][^\[\]]*)\](?!\()",
        _to(r"[\1 + 1]", r"[\1 - 1]"),
    ),
    Rule("min and max swapped", r"\b(?:std::|f)?(min|max)(?=f?\()", _swap({"min": "max"})),
    Rule("identity of a reduction", r"-INFINITY\b", _to("0")),
    Rule("constant changed", r"(?<![\w.'])(\d+)([uUlL]*)\b(?![.'])", _change_number),
    Rule(
        "constant changed",
        r"\b([01])\.0?(f?)(?=\W)",
        lambda match: [f"{int(match[1]) + 1}.0{match[2]}"],
    ),
)


def mutants_of(file: str, text: str) -> list[Mutant]:
    """Every mutant of a file that the rules give, in the order of the text."""
    code = NO_CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    found = [*_by_rules(file, text, code), *_of_atomics(file, text, code)]
    found += _of_conditions(file, text, code)
    return sorted(found, key=lambda mutant: (mutant.start, mutant.end, mutant.replacement))


def _by_rules(file: str, text: str, code: str) -> Iterator[Mutant]:
    for rule in RULES:
        for match in re.finditer(rule.pattern, code):
            line = code[code.rfind("\n", 0, match.start()) + 1 :]
            if DECLARATION.match(line) and not rule.in_declarations:
                continue
            if "FASTSSL_SHARED" in line[: line.find("\n")]:
                continue
            if not rule.in_for_headers and _in_for_header(code, match.start()):
                continue
            for replacement in rule.rewrite(match):
                yield _mutant(file, text, rule.name, match.start(), match.end(), replacement)


def _of_atomics(file: str, text: str, code: str) -> Iterator[Mutant]:
    for match in re.finditer(r"\batomicAdd(?=\()", code):
        end = _closing(code, match.end())
        address, _, value = _split_arguments(text[match.end() + 1 : end])
        plain = f"(*({address}) += ({value.strip()}))"
        yield _mutant(file, text, "atomic to plain", match.start(), end + 1, plain)


def _of_conditions(file: str, text: str, code: str) -> Iterator[Mutant]:
    for match in re.finditer(r"\bif (?=\()", code):
        end = _closing(code, match.end())
        for value in ("true", "false"):
            rule = f"condition always {value}"
            yield _mutant(file, text, rule, match.end() + 1, end, value)


def _closing(code: str, opening: int) -> int:
    """The index of the parenthesis that closes the one at `opening`."""
    depth = 0
    for index in range(opening, len(code)):
        depth += (code[index] == "(") - (code[index] == ")")
        if depth == 0:
            return index
    raise ValueError("unbalanced parentheses")


def _split_arguments(arguments: str) -> tuple[str, str, str]:
    """At the first comma outside brackets."""
    depth = 0
    for index, character in enumerate(arguments):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            return arguments[:index], ",", arguments[index + 1 :]
    raise ValueError(f"one argument only: {arguments}")


def _in_for_header(code: str, position: int) -> bool:
    opening = code.rfind("for (", 0, position)
    return opening >= 0 and _closing(code, opening + len("for ")) > position


def _mutant(file: str, text: str, rule: str, start: int, end: int, replacement: str) -> Mutant:
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", end)
    before = text[first:last]
    after = text[first:start] + replacement + text[end:last]
    line = text.count("\n", 0, start) + 1
    changed = (" ".join(part.split()) for part in (before, after))
    return Mutant(file, rule, line, start, end, replacement, *changed)
