"""What the API's description says of requests and answers that FastAPI does not see itself."""

from typing import Any

Schema = dict[str, Any]
BINARY: Schema = {"type": "string", "format": "binary"}
PROBABILITY: Schema = {"type": "number", "minimum": 0, "maximum": 1}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _answer(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": _json(schema)}


CLASS = _object(name={"type": "string"}, probability=PROBABILITY)
IMAGE = _object(
    name={"type": "string"},
    label=_or_null({"type": "string"}),
    probability=_or_null(PROBABILITY),
    classes={"type": "array", "items": CLASS},
    error=_or_null({"type": "string"}),
)
IMAGES = _object(images={"type": "array", "items": IMAGE})
REFUSED: Schema = {
    "type": "object",
    "properties": {
        "detail": {"anyOf": [{"type": "string"}, {"type": "array"}]},
        "images": {"type": "array", "items": IMAGE},
    },
    "required": ["detail"],
}
NAMED: Schema = {
    "oneOf": [
        {**_object(url={"type": "string"}), "additionalProperties": False},
        {**_object(path={"type": "string"}), "additionalProperties": False},
    ]
}
RETRY: Schema = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}

PREDICT_BODY: Schema = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": _object(files={"type": "array", "items": BINARY, "minItems": 1})
            },
            "image/jpeg": {"schema": BINARY},
            "image/png": {"schema": BINARY},
            "image/webp": {"schema": BINARY},
            **_json({"anyOf": [NAMED, {"type": "array", "items": NAMED, "minItems": 1}]}),
        },
    }
}
PREDICT_ANSWERS: dict[int | str, Schema] = {
    200: _answer("At least one image was classified; the others have an error.", IMAGES),
    400: _answer("The body is damaged.", REFUSED),
    403: _answer("Addresses or files of the server are not allowed.", REFUSED),
    408: _answer("The body came too slowly.", REFUSED),
    413: _answer("The body is too large, or holds too many images.", REFUSED),
    415: _answer("The body is of a kind that is not read.", REFUSED),
    422: _answer("No image could be used, or a parameter is wrong.", REFUSED),
    503: {**_answer("Too busy, stopping, or the model does not work.", REFUSED), "headers": RETRY},
    504: _answer("It took longer than a request may.", REFUSED),
}
HEALTH = _object(
    status={"enum": ["ready", "not ready"]},
    model={"type": "object"},
)
HEALTH_ANSWERS: dict[int | str, Schema] = {
    200: _answer("Requests are answered.", HEALTH),
    503: _answer("The model does not work, or the server stops.", HEALTH),
}
CLASSES_ANSWERS: dict[int | str, Schema] = {
    200: _answer(
        "Names in the order of the columns.",
        _object(classes={"type": "array", "items": {"type": "string"}}),
    )
}
