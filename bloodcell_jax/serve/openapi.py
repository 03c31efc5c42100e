"""The OpenAPI document of a server: every request, what it takes, and the schema of each response."""

from collections.abc import Mapping
from typing import Any

_Json = dict[str, Any]

_TEXT, _NUMBER, _COUNT, _FLAG = {"type": "string"}, {"type": "number"}, {"type": "integer"}, {"type": "boolean"}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_MAP = {"type": "array", "items": {"type": "array", "items": _NUMBER}}


def openapi_document(model: Mapping[str, Any]) -> _Json:
    """Return the document.

    Args:
      model: what `GET /model` says.
    """
    limits = model["limits"]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bloodcell_jax",
            "version": model["version"],
            "description": f"Answers of {model['name']} to images of single cells. Not for diagnosis. A request may "
            f"have {limits['upload_bytes'] / 2**20:,.0f} MiB and {limits['images']:,} images.",
        },
        "paths": {
            "/predict": {"post": _predict()},
            "/explain": {"post": _explain()},
            "/neighbors": {"post": _neighbors()},
            "/model": {"get": _get("The model, its classes and the limits of the server.", "Model")},
            "/health": {"get": _health()},
        },
        "components": {"schemas": _schemas(model)},
    }


def _predict() -> _Json:
    return {
        "summary": "Classify images, and those inside zips.",
        "parameters": [
            _cropped(),
            _parameter(
                "details", _FLAG, "also what a page needs: images to show, the row of a CSV, the manifest's path"
            ),
        ],
        "requestBody": _body("Images and zips: one part each. Their names must differ."),
        "responses": {
            "200": {
                "description": "The answers, in order. With `Accept: application/x-ndjson` each is a line as soon as "
                'it is there: {"total": n}, then {"image": ...} or {"unreadable": ...} for each image, and at the end '
                '{"done": ...}. A response without that last line is not whole.',
                "content": {
                    "application/json": {"schema": _ref("Predictions")},
                    "application/x-ndjson": {"schema": _ref("Line")},
                },
            },
            **_errors(400, 411, 413, 415, 422, 429, 503),
        },
    }


def _explain() -> _Json:
    return {
        "summary": "Say which parts of one image the answer needs; costs 50 forward passes.",
        "parameters": [_cropped(), _parameter("class", _TEXT, "class to explain; unset: the predicted one")],
        "requestBody": _body("One image."),
        "responses": {"200": _json("Occlusion and Grad-CAM.", "Explanation"), **_errors(400, 413, 415, 422, 429, 503)},
    }


def _neighbors() -> _Json:
    return {
        "summary": "Find the training images that the model takes for most like one image.",
        "parameters": [_cropped()],
        "requestBody": _body("One image. The first request reads the run's data."),
        "responses": {
            "200": _json("The nearest first; none, and why, if the data of the run are not at hand.", "Neighbors"),
            **_errors(400, 413, 415, 422, 429, 503),
        },
    }


def _health() -> _Json:
    ready = _get("Whether the model is ready.", "Health")
    ready["responses"]["503"] = _json("It is being compiled.", "Health")
    return ready


def _get(summary: str, schema: str) -> _Json:
    return {"summary": summary, "responses": {"200": _json(summary, schema)}}


def _json(description: str, schema: str) -> _Json:
    return {"description": description, "content": {"application/json": {"schema": _ref(schema)}}}


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _parameter(name: str, schema: _Json, description: str) -> _Json:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _cropped() -> _Json:
    return _parameter("cropped", _FLAG, "the images are cropped already, so each is resized whole")


def _body(description: str) -> _Json:
    binary = {"schema": {"type": "string", "format": "binary"}}
    parts = {"type": "object", "additionalProperties": {"type": "string", "format": "binary"}}
    kinds = ("image/*", "application/zip", "application/octet-stream")
    return {
        "required": True,
        "description": description,
        "content": {"multipart/form-data": {"schema": parts}} | dict.fromkeys(kinds, binary),
    }


_ERRORS = {
    400: "Malformed, or a parameter that does not exist.",
    411: "No Content-Length.",
    413: "More bytes or images than a request may have.",
    415: "Another Content-Type.",
    422: "No image can be read.",
    429: "The queue is full; Retry-After says when to ask again.",
    503: "The model is being compiled; Retry-After says when to ask again.",
}


def _errors(*codes: int) -> _Json:
    return {str(code): _json(_ERRORS[code], "Error") for code in codes}


def _schemas(model: Mapping[str, Any]) -> _Json:
    names = [each["name"] for each in model["classes"]]
    known = {"ood_score": _NUMBER, "known": _FLAG} if model["calibrated"] else {}
    image = {
        "file": _TEXT,
        "predicted": {"enum": names},
        "confidence": _SHARE,
        "probabilities": _object(dict.fromkeys(names, _SHARE)),
        **known,
        "notes": _list(_TEXT),
    }
    details = {
        "path": _TEXT,
        "csv": _list(_TEXT),
        **dict.fromkeys(("width", "height", "side"), _COUNT),
        "seen": _TEXT,
        "shown": _TEXT,
    }
    unreadable = _object({"file": _TEXT, "reason": _TEXT})
    done = {"ignored": {"type": "object", "additionalProperties": _COUNT}, "warnings": _list(_TEXT)}
    lines = {"total": _COUNT, "image": _ref("Image"), "unreadable": unreadable, "done": _object(done), "error": _TEXT}
    return {
        "Image": _object(image, details),
        "Predictions": _object({"images": _list(_ref("Image")), "unreadable": _list(unreadable), **done}),
        "Line": {"oneOf": [_object({name: schema}) for name, schema in lines.items()]},
        "Explanation": _object(
            {
                "class": {"enum": names},
                "occlusion": _MAP,
                "grad_cam": _MAP,
                "rank_agreement": _or_null(_NUMBER),
                "grad_cam_agrees": _FLAG,
                "occlusion_layer": _or_null(_TEXT),
                "grad_cam_layer": _or_null(_TEXT),
            }
        ),
        "Neighbors": _object(
            {
                "neighbors": _list(_object({"id": _TEXT, "label": _TEXT, "distance": _NUMBER, "image": _TEXT})),
                "without": _or_null(_TEXT),
            }
        ),
        "Model": _model_schema(),
        "Health": _object({"status": {"enum": ["starting", "ready"]}, "waiting": _COUNT}),
        # Of unreadable images, the answer says more than the error.
        "Error": {"type": "object", "properties": {"error": _TEXT}, "required": ["error"]},
    }


def _model_schema() -> _Json:
    return _object(
        {
            **dict.fromkeys(("name", "variant", "version"), _TEXT),
            **dict.fromkeys(("step", "image_size"), _COUNT),
            "classes": _list(_object(dict.fromkeys(("name", "title", "cell"), _TEXT))),
            "crop": {"type": ["string", "number", "null"]},
            "microns_per_pixel": {"type": ["string", "number", "null"]},
            "test_time_augmentation": _FLAG,
            "calibrated": _FLAG,
            "temperature": _NUMBER,
            "confidence_to_keep": _or_null(_SHARE),
            "wanted_error": _or_null(_SHARE),
            "csv_columns": _list(_TEXT),
            "suffixes": _list(_TEXT),
            "limits": _object(dict.fromkeys(("upload_bytes", "images", "waiting"), _COUNT)),
        }
    )


def _object(required: _Json, optional: Mapping[str, Any] | None = None) -> _Json:
    """Return the schema of an object of these properties and no others."""
    properties = required | dict(optional or {})
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _list(items: _Json) -> _Json:
    return {"type": "array", "items": items}


def _or_null(schema: _Json) -> _Json:
    return {"oneOf": [schema, {"type": "null"}]}
