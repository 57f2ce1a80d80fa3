"""No secret is left in text from Bolt, wherever it is and however the text is cut."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from paradime_blocks import ParadimeCredentials
from paradime_blocks.models import BoltRunStatus
from paradime_blocks.text.redaction import REMOVED, Redactor

SECRET = "n33dle-in-the-haystack"
redact = Redactor([SECRET])


@pytest.mark.parametrize(
    "text, expected",
    [
        pytest.param(f"key={SECRET}.", f"key={REMOVED}.", id="a credential"),
        pytest.param(
            "git clone https://bot:tok@x.test/a", f"git clone https://{REMOVED}@x.test/a", id="password"
        ),
        pytest.param("https://u:p@ss@x.test/a", f"https://{REMOVED}@x.test/a", id="password with an @"),
        pytest.param(f"https://{'t' * 40}@x.test", f"https://{REMOVED}@x.test", id="token for a user"),
        pytest.param("ssh://git@x.test/a", "ssh://git@x.test/a", id="a mere user"),
        pytest.param("https://x.test/a@b:c@d", "https://x.test/a@b:c@d", id="an @ in the path"),
        pytest.param(
            "url.https://u:p1@x.test/.insteadOf=https://u:p2@y.test/",
            f"url.https://{REMOVED}@x.test/.insteadOf=https://{REMOVED}@y.test/",
            id="two addresses in one word",
        ),
        pytest.param(
            "https://x.test/?a=https://u:p@y.test",
            f"https://x.test/?a=https://{REMOVED}@y.test",
            id="in a query",
        ),
        pytest.param(
            "(https://x.test/a?X-Amz-Signature=ab&b=1)", f"(https://x.test/a?{REMOVED}", id="signed"
        ),
        pytest.param("https://x.test/a?se=1&sig=ab", f"https://x.test/a?{REMOVED}", id="signed by Azure"),
        pytest.param("https://x.test/a?page=2", "https://x.test/a?page=2", id="a plain query"),
        pytest.param(
            "https:\\/\\/x?X-Amz-Signature=ab", f"https:\\/\\/x?X-Amz-Signature={REMOVED}", id="in JSON"
        ),
    ],
)
def test_secrets_are_removed_and_the_rest_stays(text: str, expected: str) -> None:
    """Credentials, passwords in addresses, signatures."""
    assert redact(text) == expected


@pytest.mark.parametrize("secret", ["", "a", "dbt", "test", "model"])
def test_a_short_credential_does_not_destroy_text(secret: str) -> None:
    """It would be found in every other word."""
    text = "dbt test: model orders failed"
    assert Redactor([secret])(text) == text


def test_no_cut_shows_a_part_of_a_secret() -> None:
    """Text is cleaned first, then secrets are removed, then it is cut."""
    for at in range(30):
        assert SECRET[:4] not in redact.line("x" * (200 - at) + SECRET, 200)
        assert SECRET[-4:] not in redact.tail(SECRET + "y" * (100 - at), 100)
    assert redact.line(f"{SECRET[:5]}\x1b[1m{SECRET[5:]}") == REMOVED


def test_a_tail_of_mostly_invisible_text_has_no_half_secret() -> None:
    """Colours are invisible, so only the cut shows."""
    for at in range(490, 530):
        text = f"begin {SECRET} " + "\x1b[0m" * (at // 4) + "." * (at % 4) + " end"
        assert SECRET[-4:] not in redact.tail(text, 100)


def test_a_tail_of_one_long_line_is_its_end() -> None:
    """There may be no white space to cut at."""
    assert redact.tail("x" * 1_000_000 + "end", 10) == "xxxxxxxend"


def test_the_password_of_a_proxy_is_a_secret() -> None:
    """This holds for its spelling in the proxy's URL, and for its decoded form."""
    credentials = ParadimeCredentials(
        api_endpoint="https://api.paradime.io/api/v1/a/graphql",
        api_key="a-long-key",
        api_secret=SECRET,
        proxy="http://user:p%40ssw0rd@proxy:3128",
    )
    for source in (credentials, credentials.get_client().settings):
        message = Redactor.of(source)(f"a-long-key {SECRET} p%40ssw0rd p@ssw0rd user")
        assert message == " ".join([REMOVED] * 4 + ["user"])


def test_json_is_bounded_in_depth_and_size() -> None:
    """The limits are for depth, entries and texts."""
    deep: Any = SECRET
    for _ in range(50):
        deep = [deep]
    message = redact.data({"deep": deep, "many": list(range(1000)), SECRET: None, "long": "x" * 10_000})
    assert SECRET not in str(message)
    assert len(message["many"]) <= 100
    assert len(str(message)) < 2000
    assert message[REMOVED] is None


def test_the_commands_of_a_status_are_redacted() -> None:
    """`git clone` may contain a token."""
    status = BoltRunStatus.model_validate(
        {
            "state": "RUNNING",
            "commands": [{"id": 1, "command": "git clone https://bot:tok@x.test", "stdout": SECRET}],
        }
    )
    (command,) = redact.status(status).commands
    assert (command.command, command.stdout) == (f"git clone https://{REMOVED}@x.test", REMOVED)


def test_hidden_secrets_count_too() -> None:
    """A credentials block has such values."""
    assert Redactor([SecretStr(SECRET)])(SECRET) == REMOVED
