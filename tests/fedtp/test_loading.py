import pytest

from fedtp.errors import FedtpError
from fedtp.loading import load_object
from fedtp.models import mlp


def test_any_object_by_its_import_path() -> None:
    assert load_object("fedtp.models:mlp", "model") is mlp


@pytest.mark.parametrize(
    "path",
    ["", ":", "math", "math:", "math:no_such", "no_such_module:x", "math:sqrt:x", ".relative:x", "os:path.join", ":x"],
)
def test_what_cannot_be_imported(path: str) -> None:
    with pytest.raises(FedtpError) as caught:
        load_object(path, "stream")
    assert str(caught.value).startswith(f'stream is "{path}", which cannot be imported (')
    assert str(caught.value).endswith('write it as "package.module:name".')
