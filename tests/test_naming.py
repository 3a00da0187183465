import pytest

from indexer.naming import check_key, check_name


@pytest.mark.parametrize(
    "key",
    [
        "1",
        "a" * 512,
        "😀" * 512,
        "15970",
        "red circle.png",
        " ",
        "shoes/red/1.jpg",
        "...",
        "a/...",
        ".hidden",
        "a/..b",
        "百分之100%",
        "%2F",
        "back\\slash",
        'it\'s "quoted"?&#',
        "e\u0301 and \u00e9",
        "\u200bzero\u202ewidth",
        "line\u2028separator",
    ],
)
def test_a_key_may_be_any_words_or_path(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "has 1 to 512 characters, this one 0"),
        ("a" * 513, "has 1 to 512 characters, this one 513"),
        ("a\x00b", r"control character '\\x00'"),
        ("a\nb", r"control character '\\n'"),
        ("\x7f", r"control character '\\x7f'"),
        ("\x85", r"control character '\\x85'"),
        ("half \ud83d of one", r"control character '\\ud83d'"),
        ("/a", "empty, '.' or '..' part"),
        ("a/", "empty, '.' or '..' part"),
        ("a//b", "empty, '.' or '..' part"),
        ("/", "empty, '.' or '..' part"),
        (".", "empty, '.' or '..' part"),
        ("..", "empty, '.' or '..' part"),
        ("a/./b", "empty, '.' or '..' part"),
        ("a/../b", "empty, '.' or '..' part"),
    ],
)
def test_what_is_no_key_is_refused_with_the_reason(key: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_key(key)


@pytest.mark.parametrize("name", ["a", "7", "shop", "shop-2.old_ones", "a" * 64, "商店", "été"])
def test_a_collection_may_be_named(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 65,
        "-a",
        ".a",
        ".",
        "..",
        "_a",
        "a b",
        "a/b",
        "a%b",
        "a\n",
        "a\x00",
        "😀",
        "a:b",
        "half\ud83d",
    ],
)
def test_what_is_no_collection_name_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(ValueError, match=r"1 to 64 letters, digits, .* beginning with a letter or digit"):
        check_name(name)
