import pytest

from indexer.conditions import AllOf, AnyOf, Compare, Condition, Exists, FilterError, Not, OneOf
from indexer.filter_text import parse_text, written

A, B, C = (Compare(name, "=", i) for i, name in enumerate("abc", start=1))


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("colour = red", Compare("colour", "=", "red")),
        ("colour=red", Compare("colour", "=", "red")),
        ("colour == 'navy blue'", Compare("colour", "=", "navy blue")),
        (r'title = "a \"b\" \\ c"', Compare("title", "=", 'a "b" \\ c')),
        ("größe = 'Übergröße'", Compare("größe", "=", "Übergröße")),
        ("颜色 = 黑色", Compare("颜色", "=", "黑色")),
        ("price<50", Compare("price", "<", 50)),
        ("price >= -1.5e2", Compare("price", ">=", -150.0)),
        ("price != 3", Not(Compare("price", "=", 3))),
        ("sale = TRUE", Compare("sale", "=", True)),
        ("sku = '007'", Compare("sku", "=", "007")),
        ("made > 2026-01-31", Compare("made", ">", "2026-01-31")),
        ("brand in (a, 'b', 3)", OneOf("brand", ("a", "b", 3))),
        ("brand NOT IN (a)", Not(OneOf("brand", ("a",)))),
        ("brand exists", Exists("brand")),
        ("brand not exists", Not(Exists("brand"))),
        ("title prefix black", Compare("title", "prefix", "black")),
        ("price between 1 and 2", AllOf((Compare("price", ">=", 1), Compare("price", "<=", 2)))),
        ("a = 1 or b = 2 and c = 3", AnyOf((A, AllOf((B, C))))),
        ("(a = 1 or b = 2) and c = 3", AllOf((AnyOf((A, B)), C))),
        ("not a = 1 and b = 2", AllOf((Not(A), B))),
        ("a.b-c = 1", Compare("a.b-c", "=", 1)),
        ("`in` = x", Compare("in", "=", "x")),
        ("`a``b` = x", Compare("a`b", "=", "x")),
        ("a = 1\n  and\tb = 2", AllOf((Compare("a", "=", 1), Compare("b", "=", 2)))),
    ],
)  # fmt: skip
def test_a_filter_in_words_reads_as_its_condition(text: str, condition: Condition) -> None:
    assert parse_text(text) == condition
    assert parse_text(written(condition)) == condition


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "colour = red an price < 5",
            ["character 14: expected and, or, or the end", '"red an"', "price < 5\n" + " " * 15 + "^"],
        ),
        ("colour = Navy Blue", ["character 15", 'quote it: "Navy Blue"']),
        ("price <", ["character 8: expected a value, found the end"]),
        ("= 3", ["character 1: expected an attribute, found '='"]),
        ("price = and", ["character 9: expected a value, found 'and'"]),
        ("price", ["character 6: expected a comparison (= != < <= > >= in, prefix, between, exists)"]),
        ("(a = 1", ["character 7: expected ), found the end"]),
        ("a in (1, )", ["character 10: expected a value, found ')'"]),
        ("a in 1", ["character 6: expected ("]),
        ("a = 'red", ["character 5: a string that does not end"]),
        ("a = 3 & b = 2", ["character 7: found '&'"]),
        ("a between 1 or 2", ["character 13: expected and, found 'or'"]),
        ("a = 1 and", ["character 10: expected an attribute, found the end"]),
        ("a = 1\nand b ? 2", ["character 13: found '?'", "and b ? 2\n" + " " * 8 + "^"]),
        ("x" * 200 + " ? 1", ["character 202: found '?'"]),
        ("not", ["character 4: expected an attribute"]),
        ("a < 1" + "0" * 5000, ["character 5: expected a shorter number"]),
        ("a < " + "1" * 15_000 + "x", ["character 5: found '1'"]),
        (")", ["character 1: expected an attribute, found ')'"]),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_pointed_at(text: str, said: list[str]) -> None:
    with pytest.raises(FilterError) as caught:
        parse_text(text)

    for part in said:
        assert part in str(caught.value)
