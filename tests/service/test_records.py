"""Records over HTTP: raw values by the names of their columns, answered as the same rows are as vectors."""

import gzip
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.encoding import Encoder
from service.errors import InvalidField
from service.formats import RecordsRequest
from service.formats import json as json_format
from service.formats.rows import Address, Context
from service.graphs import Matrix
from service.manifest import Manifest, read_manifest
from service.settings import Settings
from tests.manifests import write_manifest
from tests.server import MODELS, serving
from tests.service import kinds
from tests.service.conftest import wait_until_ready
from tests.service.offline.tables import examples, raw
from tests.service.requests import check_problem, post
from tests.service.v2_requests import INFER

Record = dict[str, Any]

FIRST, SECOND, THIRD = kinds.RECORDS


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    kinds.make(folder)
    kinds.make(folder, version=2)
    return folder


@pytest.fixture(scope="module")
def manifest(models: Path) -> Manifest:
    return read_manifest(models / kinds.DATASET / "2")


@pytest.fixture(scope="module")
def served(models: Path) -> Iterator[TestClient]:
    settings = Settings(models=models, provider="cpu", max_rows=50, max_body_bytes=100_000)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield wait_until_ready(client)


def body(records: object, **more: object) -> str:
    return json.dumps({"dataset": kinds.DATASET, **more, "records": records})


def changed(**values: object) -> Record:
    return {**FIRST, **values}


def encoded(records: list[Record], manifest: Manifest) -> Matrix:
    return RecordsRequest(Address(kinds.DATASET), records).encoded(Encoder.of(manifest))


def scores_of(records: list[Record], manifest: Manifest) -> list[float]:
    return [float(score) for score in kinds.score_of(encoded(records, manifest))]


def test_records_are_scored_as_their_rows_are(served: TestClient, manifest: Manifest) -> None:
    answer = post(served, body(kinds.RECORDS)).json()
    vectors = encoded(kinds.RECORDS, manifest).tolist()
    assert answer == served.post("/score", json={"dataset": kinds.DATASET, "vectors": vectors}).json()
    assert answer["scores"] == pytest.approx(scores_of(kinds.RECORDS, manifest), rel=1e-6)
    assert answer["anomalies"] == [score >= 40 for score in answer["scores"]]
    assert (answer["dataset"], answer["version"], answer["threshold"]) == (kinds.DATASET, 2, 40.0)


def test_a_version_may_be_named(served: TestClient) -> None:
    for version in (1, 2):
        assert post(served, body([FIRST], version=version)).json()["version"] == version
    assert post(served, body([FIRST], version=None)).json()["version"] == 2
    check_problem(
        post(served, body([FIRST], version=3)),
        404,
        "version_not_found",
        'No version 3 of dataset "transactions". Known versions: 1, 2.',
    )


def test_records_are_encoded(served: TestClient, manifest: Manifest) -> None:
    answer = post(served, body(kinds.RECORDS), "/encode").json()
    np.testing.assert_array_equal(np.float32(answer["latents"]), encoded(kinds.RECORDS, manifest))


def test_many_are_scored_as_one_is(served: TestClient) -> None:
    many = post(served, body(kinds.RECORDS * 16)).json()
    alone = [post(served, body([record])).json() for record in kinds.RECORDS]
    for field in ("scores", "anomalies", "p_values"):
        assert many[field] == [answer[field][0] for answer in alone] * 16


@pytest.mark.parametrize("keys", [*itertools.permutations(["dataset", "records", "version"])])
def test_the_order_of_fields_is_free(keys: tuple[str, ...], served: TestClient) -> None:
    fields = {"dataset": kinds.DATASET, "version": 2, "records": [FIRST]}
    answer = post(served, json.dumps({key: fields[key] for key in keys}, indent=4 if keys[0] == "version" else None))
    assert answer.json() == post(served, body([FIRST])).json()


def test_the_order_of_columns_is_free_and_may_change(served: TestClient) -> None:
    backwards = dict(reversed(FIRST.items()))
    assert post(served, body([FIRST, backwards])).json()["scores"][1] == post(served, body([FIRST])).json()["scores"][0]


def test_ignored_columns_may_be_there(served: TestClient) -> None:
    more = [changed(id=7), changed(label=[{"nested": None}]), FIRST]
    assert len(set(post(served, body(more)).json()["scores"])) == 1


@pytest.mark.parametrize("name", ["age", "fee", "abroad", "city", "at"])
def test_a_column_that_is_left_out_is_missing(name: str, served: TestClient) -> None:
    null = changed(**{name: None})
    absent = {key: value for key, value in FIRST.items() if key != name}
    first, second, third = post(served, body([null, absent, FIRST])).json()["scores"]
    assert first == second != third


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("amount", "a finite number that fits a float32"),
        ("member", "true, false, 0 or 1"),
        ("card", "a string"),
        ("branch", "a string or a number"),
        ("opened", 'a time as "2026-01-31T12:00:00Z"'),
    ],
)
def test_what_may_not_be_missing_is_named(name: str, expected: str, served: TestClient) -> None:
    absent = {key: value for key, value in FIRST.items() if key != name}
    for record, found in ((changed(**{name: None}), "null"), (absent, "missing")):
        response = post(served, body([FIRST, record]))
        check_problem(response, 422, "invalid_value", f"records[1].{name} is {found}, expected {expected}.")


NUMBER = "a finite number that fits a float32"
BOOLEAN = "true, false, 0, 1 or null"
TIME = 'a time as "2026-01-31T12:00:00Z" or null'

WRONG = [
    ("amount", '"12.5"', '"12.5"', NUMBER),
    ("amount", "true", "true", NUMBER),
    ("amount", "[1]", "a list", NUMBER),
    ("amount", "{}", "an object", NUMBER),
    ("amount", '{"x": 1}', "an object", NUMBER),
    ("amount", "NaN", "NaN", NUMBER),
    ("amount", "-Infinity", "-Infinity", NUMBER),
    ("amount", "3.5e38", "3.5e+38", NUMBER),
    ("amount", "1e400", "1e400", NUMBER),
    ("amount", "1" + "0" * 39, "1e+39", NUMBER),
    ("amount", "1" + "0" * 350, "1" + "0" * 59 + "...", NUMBER),
    ("amount", "1" + "0" * 500, "1" + "0" * 59 + "...", NUMBER),
    ("age", "false", "false", f"{NUMBER} or null"),
    ("age", '"null"', '"null"', f"{NUMBER} or null"),
    ("abroad", '"true"', '"true"', BOOLEAN),
    ("abroad", "2", "2", BOOLEAN),
    ("abroad", "0.5", "0.5", BOOLEAN),
    ("abroad", "[]", "a list", BOOLEAN),
    ("city", "7", "7", "a string or null"),
    ("city", "1.5", "1.5", "a string or null"),
    ("city", "true", "true", "a string or null"),
    ("city", '["Bern"]', "a list", "a string or null"),
    ("branch", "{}", "an object", "a string or a number"),
    ("branch", "1e400", "1e400", "a string or a number"),
    ("at", "1767225600", "1767225600", TIME),
    ("at", '"yesterday"', '"yesterday"', TIME),
    ("at", '""', '""', TIME),
    ("at", '"2026-02-30"', '"2026-02-30"', TIME),
    ("at", "true", "true", TIME),
]


@pytest.mark.parametrize(("name", "text", "found", "expected"), WRONG, ids=[f"{row[0]} {row[1][:20]}" for row in WRONG])
@pytest.mark.parametrize("path", ["/score", "/encode"])
def test_a_wrong_value_is_named_by_row_and_column(
    path: str, name: str, text: str, found: str, expected: str, served: TestClient
) -> None:
    whole = body([FIRST, FIRST, changed(**{name: "HERE"}), changed(amount=None)])
    response = post(served, whole.replace('"HERE"', text), path)
    check_problem(response, 422, "invalid_value", f"records[2].{name} is {found}, expected {expected}.")


@pytest.mark.parametrize("text", ["1" + "0" * 30, "-0", "5e-324", "1E5", "18446744073709551616"])
def test_numbers_are_those_of_vectors(text: str, served: TestClient, manifest: Manifest) -> None:
    records = body([changed(amount="HERE")]).replace('"HERE"', text)
    row = json.dumps(encoded([FIRST], manifest)[0].astype(float).tolist()).replace("12.5", text, 1)
    vectors = f'{{"dataset": "{kinds.DATASET}", "vectors": [{row}]}}'
    assert post(served, records).json()["scores"] == post(served, vectors).json()["scores"]


@pytest.mark.parametrize(
    ("name", "path"),
    [("colour", ".colour"), ("Amount", ".Amount"), ("", '[""]'), ("a b", '["a b"]'), ("city=Bern", '["city=Bern"]')],
)
def test_an_unknown_column_is_named(name: str, path: str, served: TestClient) -> None:
    response = post(served, body([FIRST, changed(**{name: 1})]))
    detail = f"records[1]{path} is unknown, expected the 10 columns of the dataset."
    check_problem(response, 422, "invalid_field", detail)


def test_an_unknown_column_in_place_of_one_that_is_missing_is_named(served: TestClient) -> None:
    record = {("colour" if key == "city" else key): value for key, value in FIRST.items()}
    response = post(served, body([record]))
    check_problem(
        response, 422, "invalid_field", "records[0].colour is unknown, expected the 10 columns of the dataset."
    )


WRONG_FIELDS = [
    (body([]), 422, "invalid_field", "records is empty, expected at least one row."),
    (body({}), 422, "invalid_field", "records is an object, expected a list of rows."),
    (body(None), 422, "invalid_field", "records is null, expected a list of rows."),
    (body([FIRST, 7]), 422, "invalid_field", "records[1] is 7, expected an object."),
    (body([FIRST, [1.0]]), 422, "invalid_field", "records[1] is a list, expected an object."),
    (body([None]), 422, "invalid_field", "records[0] is null, expected an object."),
    (body([{}]), 422, "invalid_value", f"records[0].amount is missing, expected {NUMBER}."),
    (body([FIRST], version="2"), 422, "invalid_field", 'version is "2", expected an integer.'),
    (body([FIRST], version=True), 422, "invalid_field", "version is true, expected an integer."),
    (body([FIRST], version=2.0), 422, "invalid_field", "version is 2.0, expected an integer."),
    (body([FIRST], dataset=3), 422, "invalid_field", "dataset is 3, expected a string."),
    (body([FIRST], vectors=[[1.0]]), 422, "invalid_field", "records is there, expected nothing beside vectors."),
    (
        body([FIRST], rows=1),
        422,
        "invalid_field",
        '"rows" is unknown, expected the fields dataset, version, vectors and records.',
    ),
    (
        body([FIRST], answer="records"),
        422,
        "invalid_field",
        '"answer" is unknown, expected the fields dataset, version, vectors and records.',
    ),
    ('{"records": [{}]}', 422, "invalid_field", "dataset is missing, expected a string."),
    (body([FIRST])[:-1], 400, "malformed_body", None),
    (body([FIRST] * 51), 413, "too_many_rows", "records has 51 rows, at most 50 are taken per request."),
    (body([1] * 51), 413, "too_many_rows", "records has 51 rows, at most 50 are taken per request."),
    (body([FIRST], dataset="nothing"), 404, "dataset_not_found", None),
    (body([changed(city="x" * 100_000)]), 413, "body_too_large", None),
]


@pytest.mark.parametrize(
    ("content", "status", "kind", "detail"), WRONG_FIELDS, ids=[str(row[3]) for row in WRONG_FIELDS]
)
def test_fields_that_are_wrong(content: str, status: int, kind: str, detail: str | None, served: TestClient) -> None:
    response = post(served, content)
    check_problem(response, status, kind, detail or response.json()["detail"])


LATE = f'{{"dataset": "{kinds.DATASET}", {" " * 300} "records": %s}}'
"""A body whose rows are named so late that it is read strictly."""


@pytest.mark.parametrize("frame", ['{"dataset": "transactions", "records": %s}', LATE], ids=["fast", "strict"])
def test_both_readings_give_the_same(frame: str, served: TestClient) -> None:
    good = post(served, frame % json.dumps(kinds.RECORDS)).json()
    assert good == post(served, body(kinds.RECORDS)).json()
    bad = post(served, frame % json.dumps([FIRST, changed(city=7)]))
    check_problem(bad, 422, "invalid_value", "records[1].city is 7, expected a string or null.")


DUPLICATES = [
    ('{"amount": 1, "city": "Bern", "amount": 1}', "amount"),
    ('{"amount": 1, "city": "a:b", "city": "Bern"}', "city"),
    ('{"amount": 1, "city": "\\u003a", "amount": 2}', "amount"),
    ('{"city": ":", "city": "\\u003A:", "amount": 1}', "city"),
    ('{"am\\u006funt": 1, "amount": 2}', "amount"),
    ('{"amount": {"a": 1, "a": 2}}', "a"),
]


@pytest.mark.parametrize(("record", "key"), DUPLICATES)
@pytest.mark.parametrize("frame", ['{"dataset": "transactions", "records": [%s]}', LATE.replace("%s", "[%s]")])
def test_a_key_that_is_there_twice_is_refused(frame: str, record: str, key: str, served: TestClient) -> None:
    check_problem(post(served, frame % record), 400, "malformed_body", f'The body has the key "{key}" twice.')


@pytest.mark.parametrize("key", ["dataset", "records", "version"])
def test_a_field_that_is_there_twice_is_refused(key: str, served: TestClient) -> None:
    whole = body([FIRST], version=2)
    content = whole[:-1] + f', "{key}": {json.dumps(json.loads(whole)[key])}}}'
    check_problem(post(served, content), 400, "malformed_body", f'The body has the key "{key}" twice.')


def test_colons_in_texts_are_no_keys(served: TestClient) -> None:
    read = json_format._read_records(
        body([changed(city="::"), THIRD, changed(city="\u2028:")], version=1).encode(), Context(b"", "vectors", 50)
    )
    assert read is not None  # the fast reading has taken it
    assert post(served, body([changed(city="::")])).status_code == 200
    escaped = body([changed(city="HERE")]).replace("HERE", "\\u003a")
    assert post(served, escaped).json() == post(served, body([changed(city=":")])).json()


def test_texts_may_be_escaped(served: TestClient) -> None:
    records = [changed(city="Genève"), FIRST]
    plain = json.dumps({"dataset": kinds.DATASET, "records": records}, ensure_ascii=False)
    assert post(served, plain).json() == post(served, body(records)).json()
    lone = body([changed(city="HERE")]).replace("HERE", "\\ud800")
    assert post(served, lone).status_code == 200  # a category that nobody knows


def test_records_may_be_compressed(served: TestClient) -> None:
    packed = gzip.compress(body(kinds.RECORDS).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert served.post("/score", content=packed, headers=headers).json() == post(served, body(kinds.RECORDS)).json()


def test_a_record_s_result_that_is_not_finite_is_named(served: TestClient) -> None:
    response = post(served, body([FIRST, changed(amount=3.4e38)]))
    detail = "records[1] has values so large that its result is not a finite number."
    check_problem(response, 422, "result_not_finite", detail)


def test_unseen_categories_and_values_outside_the_range_are_counted(served: TestClient) -> None:
    def counted(name: str) -> float:
        lines = served.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"radogaga_{name}_total{{"))

    names = ("unseen_categories", "values_outside_training_range")
    before = [counted(name) for name in names]
    post(served, body([THIRD, SECOND]))
    unseen, outside = (counted(name) - was for name, was in zip(names, before, strict=True))
    assert unseen == 2  # of Zürich, for which there is a column, and of the black card
    assert outside == 2  # of an amount and of an age; what was missing is not outside


@pytest.mark.parametrize("records", [kinds.RECORDS, kinds.RECORDS * 10])
def test_p_values_are_answered(records: list[Record], served: TestClient) -> None:
    answer = post(served, body(records)).json()
    steps, counts = [float("-inf"), *kinds.P_VALUES["scores"]], [9, *kinds.P_VALUES["above"]]
    found = [max(i for i, step in enumerate(steps) if step < score) for score in answer["scores"]]
    assert answer["p_values"] == [(1 + counts[i]) / 10 for i in found]
    assert len(set(answer["p_values"])) > 1


def test_p_values_are_in_other_formats_too(served: TestClient) -> None:
    def ask(accept: str) -> httpx.Response:
        headers = {"content-type": "application/json", "accept": accept}
        response: httpx.Response = served.post("/score", content=body(kinds.RECORDS), headers=headers)
        assert response.status_code == 200
        return response

    answer = ask("application/json").json()
    table = pa.ipc.open_stream(ask("application/vnd.apache.arrow.stream").content).read_all()
    assert table.column_names == ["scores", "anomalies", "p_values"]
    assert table["p_values"].to_pylist() == answer["p_values"]
    head, *lines = ask("text/csv").text.splitlines()
    assert head == "scores,anomalies,p_values"
    assert [float(line.split(",")[2]) for line in lines] == answer["p_values"]
    assert np.load(io.BytesIO(ask("application/x-npy").content)).tolist() == answer["scores"]
    assert np.frombuffer(ask("application/octet-stream").content, "<f4").tolist() == answer["scores"]


def test_p_values_are_an_output_of_the_protocol(served: TestClient, manifest: Manifest) -> None:
    x = encoded(kinds.RECORDS, manifest)
    tensor = {"name": "vectors", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
    path = INFER.replace("thyroid", kinds.DATASET)
    outputs = {output["name"]: output for output in served.post(path, json={"inputs": [tensor]}).json()["outputs"]}
    assert list(outputs) == ["scores", "anomalies", "p_values"]
    answer = post(served, body(kinds.RECORDS)).json()
    assert outputs["p_values"] == {"name": "p_values", "datatype": "FP64", "shape": [3], "data": answer["p_values"]}
    described = served.get(path.removesuffix("/infer")).json()["outputs"]
    assert described[2] == {"name": "p_values", "datatype": "FP64", "shape": [-1]}
    wanted = {"inputs": [tensor], "outputs": [{"name": "p_values"}]}
    assert [output["name"] for output in served.post(path, json=wanted).json()["outputs"]] == ["p_values"]


def test_models_without_them_answer_none(client: TestClient) -> None:
    row = {"dataset": "thyroid", "vectors": [[0.1] * 6]}
    assert list(client.post("/score", json=row).json()) == ["dataset", "version", "threshold", "scores", "anomalies"]
    assert len(client.get("/v2/models/thyroid").json()["outputs"]) == 2


def test_datasets_describe_features_as_manifests_have_them(served: TestClient, client: TestClient) -> None:
    model = served.get(f"/datasets/{kinds.DATASET}").json()["versions"][-1]
    assert model["features"] == kinds.FEATURES
    assert (model["ignored"], model["p_values"], model["metrics"]) == (kinds.IGNORED, True, None)
    assert model["calibration"]["false_positive_rate"] == 0.1
    shipped = client.get("/datasets/kddcup99").json()["versions"][-1]
    assert shipped["features"] == json.loads((MODELS / "kddcup99" / "2" / "manifest.json").read_text())["features"]
    assert (shipped["ignored"], shipped["p_values"]) == ([], False)
    assert shipped["metrics"]["shipped_threshold"]


def decode(served: TestClient, latents: object, accept: str = "*/*", **more: object) -> httpx.Response:
    content = json.dumps({"dataset": kinds.DATASET, "latents": latents, **more})
    headers = {"content-type": "application/json", "accept": accept}
    response: httpx.Response = served.post("/decode", content=content, headers=headers)
    return response


def test_decode_answers_records(served: TestClient, manifest: Manifest) -> None:
    latents = encoded(kinds.RECORDS, manifest).tolist()
    answer = decode(served, latents, answer="records").json()
    assert list(answer) == ["dataset", "version", "records"]
    assert answer["records"][1] == {
        "amount": -3.0,
        "age": None,
        "fee": 0.1,
        "member": False,
        "abroad": None,
        "city": None,
        "card": "plain",
        "branch": "12",
    }
    assert decode(served, latents, answer="records", version=1).json()["version"] == 1
    vectors = decode(served, latents, answer="vectors").json()
    assert vectors == decode(served, latents).json()
    assert list(vectors) == ["dataset", "version", "vectors"]


def test_decoded_records_can_be_scored_again(served: TestClient, manifest: Manifest) -> None:
    latents = encoded(kinds.RECORDS, manifest).tolist()
    times = [{"at": record["at"], "opened": record["opened"]} for record in kinds.RECORDS]
    decoded = decode(served, latents, answer="records").json()["records"]
    again = post(served, body([{**record, **when} for record, when in zip(decoded, times, strict=True)])).json()
    assert again["scores"][:2] == post(served, body(kinds.RECORDS)).json()["scores"][:2]  # the third's card is unknown


@pytest.mark.parametrize(
    ("answer", "found"), [("rows", '"rows"'), (None, "null"), (["records"], "a list"), (True, "true")]
)
def test_other_answers_are_refused(answer: object, found: str, served: TestClient) -> None:
    response = decode(served, [[0.0] * len(kinds.COLUMNS)], answer=answer)
    check_problem(response, 422, "invalid_field", f'answer is {found}, expected "vectors" or "records".')


def test_records_are_answered_in_json_only(served: TestClient) -> None:
    response = decode(served, [[0.0] * len(kinds.COLUMNS)], "text/csv", answer="records")
    check_problem(response, 422, "invalid_field", 'answer is "records", expected "vectors" in text/csv.')


def test_latents_are_no_records(served: TestClient) -> None:
    content = json.dumps({"dataset": kinds.DATASET, "records": [FIRST]})
    expected = "the fields dataset, version, latents and answer"
    check_problem(post(served, content, "/decode"), 422, "invalid_field", f'"records" is unknown, expected {expected}.')


@pytest.mark.parametrize("dataset", ["kddcup99", "kddcup-rev"])
def test_shipped_models_take_raw_records(dataset: str, client: TestClient) -> None:
    x = examples(dataset)
    records = raw(x, dataset).to_pylist()
    assert {"tcp", "http", "SF"} <= {value for record in records for value in record.values()}
    answer = client.post("/score", json={"dataset": dataset, "records": records}).json()
    assert answer == client.post("/score", json={"dataset": dataset, "vectors": x.tolist()}).json()
    numbers = [{**record, "land": int(record["land"]), "logged_in": record["logged_in"] == "1"} for record in records]
    assert client.post("/score", json={"dataset": dataset, "records": numbers}).json() == answer
    latents = client.post("/encode", json={"dataset": dataset, "records": records}).json()["latents"]
    decoded = client.post("/decode", json={"dataset": dataset, "latents": latents, "answer": "records"}).json()
    assert list(decoded["records"][0]) == [
        f["name"] for f in client.get(f"/datasets/{dataset}").json()["versions"][-1]["features"]
    ]


def test_records_take_the_lane_and_every_other_way(tmp_path: Path, models: Path) -> None:
    with serving(tmp_path / "log", models=models) as server, server.client() as client:
        some = post_to(client, body(kinds.RECORDS))
        long = post_to(client, body([changed(city="x" * 1000)] * 1500))
        bad = post_to(client, body([changed(city=7)]))
    assert some.json()["scores"][0] != some.json()["scores"][1]
    assert long.status_code == 200
    assert len(set(long.json()["scores"])) == 1
    check_problem(bad, 422, "invalid_value", "records[0].city is 7, expected a string or null.")


def post_to(client: httpx.Client, content: str) -> httpx.Response:
    return client.post("/score", content=content, headers={"content-type": "application/json"})


def test_brackets_beyond_the_rows_are_refused_unread() -> None:
    content = b'{"dataset": "x", "records": [' + b"{}," * 600_000 + b"{}]}"
    with pytest.raises(InvalidField, match=r"The body has 600003 opening brackets, expected at most 1050 for 50 rows"):
        json_format.read(content, Context(b"", "vectors", 50))


@pytest.mark.parametrize("seed", range(20))
def test_the_fast_reading_takes_nothing_that_the_strict_one_refuses(seed: int) -> None:
    draw = np.random.default_rng(seed)
    whole = body(kinds.RECORDS, version=1).encode()
    context = Context(b"", "vectors", 50)
    for _ in range(200):
        changed_body = bytearray(whole)
        for _ in range(draw.integers(1, 4)):
            changed_body[draw.integers(len(whole))] = draw.choice(list(b'"{}[],:0123456789aeinu\\ \xff'))
        fast = json_format._read_records(bytes(changed_body), context)
        if fast is not None:
            document = json_format.strict_document(bytes(changed_body), 50)
            address, field, records = json_format.check_fields(document, context)
            assert (fast.address, fast.field, fast._records) == (address, field, records)


def test_a_single_feature_is_a_column_too(tmp_path: Path) -> None:
    folder = kinds.make(tmp_path, kinds.FEATURES[:1], ["amount"], ignored=None, p_values=None)
    write_manifest(folder / "manifest.json", json.loads((folder / "manifest.json").read_text()))
    encoder = Encoder.of(read_manifest(folder))
    assert RecordsRequest(Address("x"), [{"amount": 1}, {"amount": 2.5}]).encoded(encoder).tolist() == [[1.0], [2.5]]
