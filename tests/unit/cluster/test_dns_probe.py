"""The DNS probe's two texts."""

import pytest

from cluster.dns_probe import answers, question


def test_a_question_asks_for_one_address():
    assert question("web.default") == bytes.fromhex(
        "6d70 0100 0001 0000 0000 0000 03776562 0764656661756c74 00 0001 0001"
    )


@pytest.mark.parametrize(
    ("reply", "count"),
    [
        pytest.param("6d70 8180 0001 0002 0000 0000", 2, id="two addresses"),
        pytest.param("6d70 8183 0001 0000 0000 0001", 0, id="no such name"),
        pytest.param("6d70 8182 0001 0001 0000 0000", 0, id="server failure"),
        pytest.param("0001 8180 0001 0001 0000 0000", 0, id="another question's"),
        pytest.param("6d70", 0, id="cut off"),
    ],
)
def test_only_a_good_reply_to_our_question_counts(reply, count):
    assert answers(bytes.fromhex(reply)) == count
