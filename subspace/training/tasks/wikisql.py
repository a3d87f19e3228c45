"""WikiSQL: a question about a table, and the SQL that answers it (Zhong et al. 2017).

Two tasks of arXiv:1709.00103, one of those that Hu et al. 2021 adapt GPT-3 to. `wikisql-agg` is to
classify the question by the query's aggregation operator: a stand-in for text-to-SQL on encoders,
not text-to-SQL. `wikisql-sql` is to write the whole query. BSD-3-Clause, not part of this package.

Whole tables are held out, and no question is in two splits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from subspace.errors import FormatError
from subspace.training.tasks.dataset import Dataset, build_completion, build_labelled
from subspace.training.tasks.sources import place_in_splits, source_records, thin
from subspace.training.tasks.textfiles import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from subspace.training.tasks.sources import Records

OPERATORS = ("NONE", "MAX", "MIN", "COUNT", "SUM", "AVG")  # WikiSQL's own order
HELD_OUT_QUERIES = 500  # of validation and of test: the standard error is at most 2.3 points
_COLUMN = re.compile(r"\S+_FIELD\b")
_QUOTED = re.compile(r'"[^"]*"')


@dataclass(frozen=True)
class _Query:
    question: str
    sql: str
    operator: str
    table: str
    columns: tuple[str, ...]


def wikisql_agg(source: Path | None = None) -> Dataset:
    """Tell the aggregation operator of the query that answers a question (6 classes).

    A stand-in for text-to-SQL. Of all queries 72 % have no operator, so in each split every class
    is cut to the size of the least.

    Parameters
    ----------
    source
        A file with the fields question, sql, agg and table; or a folder with ``wikisql*train*``,
        ``wikisql*dev*``, ``wikisql*test*`` (train and dev alone: dev is halved); or None for
        ``Salesforce/wikisql`` on the Hugging Face hub.
    """
    rows = {}
    for split, queries in _splits("wikisql-agg", source).items():
        classes = {name: [q for q in queries if q.operator == name] for name in OPERATORS}
        least = min(len({q.question for q in queries_of}) for queries_of in classes.values())
        if not least:
            missing = ", ".join(name for name, queries_of in classes.items() if not queries_of)
            raise FormatError(f"wikisql-agg: no query with {missing} for {split}; give more")
        rows[split] = [
            (query.question, OPERATORS.index(name))
            for name, queries_of in classes.items()
            for query in thin(queries_of, lambda q: q.question, least)
        ]
    return build_labelled("wikisql-agg", OPERATORS, rows)


def wikisql_sql(source: Path | None = None) -> Dataset:
    """Write the SQL that answers a question about a table, whose columns the prompt names.

    A query is right if it is the published one but for white space and, outside double quotes,
    the case of letters: WikiSQL's logical-form accuracy, which fails a right query written another
    way. Files hold no tables: a table's columns are those that the file's queries name, often only
    the answer's own. That is easier than WikiSQL, and not comparable with published results; from
    the hub, the prompt has all columns of the table.

    Parameters
    ----------
    source
        As for `wikisql_agg`.
    """
    most = {"validation": HELD_OUT_QUERIES, "test": HELD_OUT_QUERIES}
    rows = {
        split: [
            (f"columns: {', '.join(query.columns)}\n{query.question}", query.sql)
            for query in thin(
                queries, lambda q: f"{q.table}\n{q.question}", most.get(split, len(queries))
            )
        ]
        for split, queries in _splits("wikisql-sql", source).items()
    }
    return build_completion("wikisql-sql", rows, match="sql")


def _splits(task: str, source: Path | None) -> dict[str, list[_Query]]:
    # The hub's own data set is a script, which `datasets` no longer runs; this is its conversion.
    by_split = source_records(
        task, source, prefix="wikisql", hub="Salesforce/wikisql", revision="refs/convert/parquet"
    )
    parts = {part: _with_columns(list(_queries(records))) for part, records in by_split.items()}
    # Both tasks split by one salt: an adapter of one is never tested on what another was taught.
    return place_in_splits(
        "wikisql", parts, lambda q: (q.table, " ".join(q.question.casefold().split()))
    )


def _queries(records: Records) -> Iterator[_Query]:
    for where, record in records:
        if isinstance(record.get("sql"), dict):
            yield _of_hub(where, record)
            continue
        texts = [read_text(where, record, name) for name in ("question", "sql", "agg", "table")]
        if texts[2] not in OPERATORS:
            raise FormatError(f"{where}: agg {texts[2]!r} is none of {', '.join(OPERATORS)}")
        yield _Query(texts[0], texts[1], texts[2], texts[3], ())


def _of_hub(where: str, record: Mapping[str, object]) -> _Query:
    sql: Any = record["sql"]
    table: Any = record.get("table")
    try:
        columns = tuple(str(name) for name in table["header"])
        operator, key = OPERATORS[sql["agg"]], str(table["id"])
    except (LookupError, TypeError) as error:
        raise FormatError(f"{where}: not a record of WikiSQL: {error!r}") from error
    question, query = read_text(where, record, "question"), read_text(where, sql, "human_readable")
    return _Query(question, query, operator, key, columns)


def _with_columns(queries: list[_Query]) -> list[_Query]:
    named: dict[str, set[str]] = {}
    for query in queries:
        named.setdefault(query.table, set()).update(_COLUMN.findall(_QUOTED.sub("", query.sql)))
    # In alphabetical order, lest their order say which one is selected.
    return [q if q.columns else replace(q, columns=tuple(sorted(named[q.table]))) for q in queries]
