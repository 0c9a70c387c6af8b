"""The API's description as a plain page: no script, nothing from another address."""

import json
from html import escape
from typing import Any

# the browser is told to load nothing at all
HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}"
    "pre{background:#f4f4f4;padding:.5rem;overflow:auto}"
    "td,th{text-align:left;vertical-align:top;padding:.2rem .8rem .2rem 0}"
)
EXAMPLES = {
    "/predict": "curl -F files=@one.jpg -F files=@two.jpg '{base}/predict?top=3'\n"
    "curl --data-binary @one.jpg -H 'Content-Type: image/jpeg' {base}/predict",
}


def docs_page(description: dict[str, Any], base: str) -> str:
    """Return a page of HTML for an OpenAPI description.

    Args:
        description: Of the API.
        base: Address of the server, for the examples.
    """
    info = description["info"]
    parts = [f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"]
    parts.append(f"<p>{escape(info.get('description', ''))}</p>")
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(path, method, operation, base))
    parts.append('<p>For programs: <a href="openapi.json">openapi.json</a></p>')
    title = escape(info["title"])
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'


def _operation(path: str, method: str, operation: dict[str, Any], base: str) -> str:
    parts = [f"<h2>{escape(method.upper())} {escape(path)}</h2>"]
    parts.append(f"<p>{escape(operation.get('description') or operation['summary'])}</p>")
    if path in EXAMPLES:
        parts.append(f"<pre>{escape(EXAMPLES[path].replace('{base}', base))}</pre>")
    rows = [
        (f"?{found['name']}=", found.get("description") or "")
        for found in operation.get("parameters", [])
    ]
    rows += [(kind, "as a body") for kind in operation.get("requestBody", {}).get("content", {})]
    rows += [(code, found["description"]) for code, found in operation["responses"].items()]
    cells = "".join(f"<tr><th>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in rows)
    parts.append(f"<table>{cells}</table>")
    answered = operation["responses"].get("200", {}).get("content", {}).get("application/json")
    if answered:
        text = json.dumps(_example(answered["schema"]), indent=2)
        parts.append(f"<p>Answers with</p><pre>{escape(text)}</pre>")
    return "".join(parts)


def _example(schema: dict[str, Any]) -> Any:
    """Return a value of the shape that a schema describes."""
    if "anyOf" in schema:
        return _example(schema["anyOf"][0])
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {key: _example(value) for key, value in schema.get("properties", {}).items()}
    if schema.get("type") == "array":
        return [_example(schema["items"])]
    return {"number": 0.5, "integer": 1}.get(schema.get("type", ""), "text")
