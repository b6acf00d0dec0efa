"""User SQL, read-only by construction: what may run is decided on the engine's own parse of it.

Theory of operation. ``readonly = 1`` is not enough: under it ``file('/etc/passwd')`` runs as a
scalar, and so do ``INTO OUTFILE``, ``KILL QUERY``, ``USE`` and several statements in one text. A
parser of our own would disagree with ClickHouse's somewhere, and that somewhere is the hole. So:

1. ``formatQuery`` (a function, the text bound as its parameter, nothing is executed) parses the
   text with ClickHouse's own parser, refuses more than one statement, and gives it back in one
   canonical form, without comments. Only that form goes on.
2. The same for the form as a subquery: what parses there has no FORMAT, INTO OUTFILE or the like.
3. ``EXPLAIN AST`` of the form gives the tree, again without executing. Every node must be of a kind
   listed here (no SETTINGS, no unknown statement), every function one of those that compute from
   their arguments alone, every table a plain name.
4. It runs in the database `headwater`, which holds the views and nothing else, so that a plain name
   is a view or one of the query's own WITH names; in a session that is readonly and bounded.

Allowed functions are listed by category: what a later ClickHouse adds beside them stays refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import msgspec

from headwater import limits
from headwater.errors import QueryRefused

#: What is open to a user; also the text of the remedy.
TABLES = (
    "events",
    "people",
    "sessions",
    "identities",
    "profile_history",
    "merges",
    "rejected",
    "erasures",
    "accounting",
    "plan_violations",
    "property_types",
)

_NODES = frozenset(
    {
        "ArrayJoin",
        "Asterisk",
        "ColumnsExceptTransformer",
        "ColumnsListMatcher",
        "ColumnsRegexpMatcher",
        "ColumnsReplaceTransformer",
        "ColumnsReplaceTransformer::Replacement",
        "ColumnsTransformerList",
        "ExpressionList",
        "Function",
        "Identifier",
        "InterpolateElement",
        "Literal",
        "OrderByElement",
        "QualifiedAsterisk",
        "QualifiedColumnsListMatcher",
        "QualifiedColumnsRegexpMatcher",
        "SelectIntersectExceptQuery",
        "SelectQuery",
        "SelectWithUnionQuery",
        "Subquery",
        "TableExpression",
        "TableIdentifier",
        "TableJoin",
        "TablesInSelectQuery",
        "TablesInSelectQueryElement",
        "WindowDefinition",
        "WindowListElement",
        "WithElement",
    }
)
#: Categories of system.functions whose members compute from their arguments (and, some, the clock
#: or a random generator) alone. Not among them: AI, Dictionary, Embedded Dictionary, Encryption,
#: Internal, Introspection, Machine Learning, Time Series, Other.
CATEGORIES = (
    "Aggregate Functions",
    "Arithmetic",
    "Arrays",
    "Bit",
    "Bitmap",
    "Comparison",
    "Conditional",
    "Dates and Times",
    "Distance",
    "Encoding",
    "Financial",
    "Geo",
    "Geo Polygon",
    "Hash",
    "IP Address",
    "JSON",
    "Logical",
    "Map",
    "Mathematical",
    "Null",
    "Random Number",
    "Rounding",
    "String",
    "String Replacement",
    "String Search",
    "String Splitting",
    "Time Window",
    "Tuple",
    "Type Conversion",
    "URL",
    "UUID",
)
#: The same, of categories that also hold others; and what the parser makes of operators.
_SINGLE = (
    "bar",
    "byteSize",
    "caseWithExpression",
    "countDigits",
    "currentDatabase",
    "defaultValueOfTypeName",
    "exists",
    "finalizeAggregation",
    "formatReadableDecimalSize",
    "formatReadableQuantity",
    "formatReadableSize",
    "formatReadableTimeDelta",
    "getSubcolumn",
    "grouping",
    "identity",
    "ignore",
    "isConstant",
    "lambda",
    "materialize",
    "neighbor",
    "parseReadableSize",
    "parseReadableSizeOrNull",
    "parseReadableSizeOrZero",
    "parseTimeDelta",
    "rowNumberInAllBlocks",
    "rowNumberInBlock",
    "runningAccumulate",
    "runningDifference",
    "toColumnTypeName",
    "toTypeName",
    "transform",
    "untuple",
    "variantElement",
    "variantType",
    "version",
)
_TABLE_FUNCTIONS = frozenset(
    {"numbers", "numbers_mt", "zeros", "generateseries", "generate_series", "values"}
)
#: Aggregates that are made to fail or to show the server's inside.
_REFUSED = frozenset({"aggthrow", "flamegraph"})
#: What follows a name in a line of EXPLAIN AST.
_LINE = re.compile(r"( *)(\S+)(?: (.*?))?(?: \(alias .*\))?(?: \(children \d+\))?", re.DOTALL)
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Strings and quoted names of the canonical form; a name with a line break could draw lines of its
#: own into the tree.
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`", re.DOTALL)
_ODD = re.compile(r"[\\\x00-\x1f]")
_DESCRIBE = re.compile(r"DESCRIBE TABLE ([A-Za-z_]+)")
_SHOW_TABLES = "SHOW TABLES"
_REMEDY = f"ask one SELECT over {', '.join(TABLES)}"

_FUNCTIONS_SQL = """SELECT name, alias_to, categories FROM system.functions"""
_COMBINATORS_SQL = "SELECT name FROM system.aggregate_function_combinators"

#: Runs a statement of ours with bound parameters, gives its rows.
Ask = Callable[[str, dict[str, str]], Sequence[Sequence[object]]]
#: The lines of EXPLAIN AST of a statement.
Explain = Callable[[str], list[str]]


class Functions(msgspec.Struct, frozen=True):
    """Names of allowed functions, in lower case, and the combinators that aggregates may carry."""

    names: frozenset[str]
    combinators: tuple[str, ...]

    def allow(self, name: str) -> bool:
        """Whether a function may be called: ``countIf`` is ``count`` with a combinator."""
        name = name.lower()
        while name not in self.names:
            for ending in self.combinators:
                if name.endswith(ending) and len(name) > len(ending):
                    name = name[: -len(ending)]
                    break
            else:
                return False
        return name not in _REFUSED


def read_functions(ask: Ask) -> Functions:
    """The functions of this engine that a user may call."""
    allowed = {name.lower() for name in _SINGLE}
    rows = [[str(value) for value in row] for row in ask(_FUNCTIONS_SQL, {})]
    allowed |= {name.lower() for name, _, category in rows if category in CATEGORIES}
    allowed |= {name.lower() for name, alias, _ in rows if alias and alias.lower() in allowed}
    endings = sorted((str(row[0]).lower() for row in ask(_COMBINATORS_SQL, {})), key=len)
    return Functions(frozenset(allowed), tuple(reversed(endings)))


def permit(sql: str, ask: Ask, explain: Explain, functions: Functions) -> str:
    """`sql` in the form that may run. Raises QueryRefused, saying what is not allowed."""
    if len(sql.encode("utf-8", "replace")) > limits.query_text_bytes_max:
        raise QueryRefused(f"the text is over {limits.query_text_bytes_max} bytes")
    form = _form(sql, ask)
    for quoted in _QUOTED.findall(form):
        if quoted.startswith("`") and _ODD.search(quoted):
            raise QueryRefused(f"no name {quoted[:80]} is allowed", remedy=_REMEDY)
    if _DESCRIBE.fullmatch(form) or form == _SHOW_TABLES:
        return form
    try:
        wrapped = _form(f"SELECT * FROM ({form}\n)", ask)  # noqa: S608
    except QueryRefused:
        raise QueryRefused(
            "only a SELECT, without FORMAT or INTO OUTFILE, may be asked", remedy=_REMEDY
        ) from None
    _check(explain(wrapped), functions)
    return form


def _form(sql: str, ask: Ask) -> str:
    return str(ask("SELECT formatQuery({sql:String})", {"sql": sql})[0][0])


class _Node(msgspec.Struct):
    kind: str
    name: str
    children: int = 0


def _check(tree: Iterable[str], functions: Functions) -> None:
    """Refuse a tree, the lines of EXPLAIN AST, that holds anything but what is listed above."""
    path: list[_Node] = []
    for line in tree:
        match = _LINE.fullmatch(line)
        if match is None:
            raise QueryRefused(f"not understood: {line.strip()[:80]!r}", remedy=_REMEDY)
        node = _Node(match[2], match[3] or "")
        del path[len(match[1]) :]
        if node.kind not in _NODES:
            what = {"Set": "SETTINGS", "ColumnsApplyTransformer": "APPLY"}.get(node.kind, node.kind)
            raise QueryRefused(f"{what} is not allowed", remedy=_REMEDY)
        if node.kind == "Function":
            _check_function(node.name, path, functions)
        elif node.kind == "TableIdentifier" and not _PLAIN_NAME.fullmatch(node.name):
            raise QueryRefused(f"no table {node.name[:80]!r} here", remedy=_REMEDY)
        elif node.kind == "Identifier" and _is_set_of_in(path) and "." in node.name:
            # The right side of IN may name a table of any database.
            raise QueryRefused(
                f"IN {node.name[:80]} is not allowed", remedy="use has(array, value)"
            )
        if path:
            path[-1].children += 1
        path.append(node)


def _check_function(name: str, path: Sequence[_Node], functions: Functions) -> None:
    if path and path[-1].kind == "TableExpression":
        if name.lower() not in _TABLE_FUNCTIONS:
            raise QueryRefused(f"the table function {name[:80]} is not allowed", remedy=_REMEDY)
    elif not functions.allow(name):
        raise QueryRefused(
            f"the function {name[:80]} is not allowed",
            remedy="use functions that compute from their arguments alone",
        )


def _is_set_of_in(path: Sequence[_Node]) -> bool:
    """Whether the next node is the right side of IN or one of its kin."""
    return (
        len(path) > 1
        and path[-2].kind == "Function"
        and path[-2].name.lower().removesuffix("ignoreset").endswith("in")
        and path[-1].children > 0
    )
