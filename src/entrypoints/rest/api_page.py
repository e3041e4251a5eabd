"""``/docs``: the API as a page on which requests can be tried; it loads nothing from other servers."""

from __future__ import annotations

from copy import deepcopy
from importlib.resources import files
from string import Template
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.staticfiles import StaticFiles
from starlette.responses import HTMLResponse, JSONResponse

from ..public_address import prefix_of

PAGE, DOCUMENT, FILES = "/docs", "/docs/openapi.json", "/docs/files"
# the page's own script, and pictures in its style sheet, are inline
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
)
# Fields that are left empty are not sent. Without `validatorUrl: null` the document's address would go to swagger.io.
_HTML = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>voxport</title>
<link rel="stylesheet" href="$files/swagger-ui.css">
<link rel="icon" href="$files/favicon-32x32.png">
</head>
<body>
<form id="ask" hidden>
<label>Key <input id="key" type="password" autocomplete="off"></label> <button>Open</button>
</form>
<main id="page"></main>
<script src="$files/swagger-ui-bundle.js"></script>
<script>
const ask = document.getElementById("ask"), key = document.getElementById("key");
const prepare = (request) => {
  if (key.value) request.headers["X-API-Key"] = key.value;
  if (request.body instanceof FormData)
    for (const [name, value] of [...request.body]) if (value === "") request.body.delete(name);
  return request;
};
const open = async () => {
  const asked = prepare({ headers: {} });
  ask.hidden = (await fetch("$document", asked)).status !== 401;
  if (ask.hidden)
    SwaggerUIBundle({
      url: "$document", dom_id: "#page", deepLinking: true, validatorUrl: null, requestInterceptor: prepare,
    });
};
ask.addEventListener("submit", (event) => { event.preventDefault(); open(); });
open();
</script>
</body>
</html>
""")

router = APIRouter(include_in_schema=False)


@router.get(PAGE)
async def page(request: Request) -> HTMLResponse:
    """The page."""
    prefix = prefix_of(request.scope)
    html = _HTML.substitute(files=f"{prefix}{FILES}", document=f"{prefix}{DOCUMENT}")
    return HTMLResponse(html, headers={"Content-Security-Policy": _POLICY})


@router.get(DOCUMENT)
async def document(request: Request) -> JSONResponse:
    """The OpenAPI document, with an empty example of each optional field of a form: the page would make values up."""
    described: dict[str, Any] = deepcopy(request.app.openapi())
    described["servers"] = [{"url": prefix_of(request.scope) or "/"}]
    for name, schema in described["components"]["schemas"].items():
        fields = schema.get("properties", {}) if name.startswith("Body_") else {}
        for field, value in fields.items():
            if field not in schema.get("required", ()) and "default" not in value:
                value["example"] = [] if value.get("type") == "array" else ""
    return JSONResponse(described)


def add_files(app: FastAPI) -> None:
    """Serve the page's script and style."""
    app.mount(FILES, StaticFiles(directory=str(files("fastapi_swagger").joinpath("resources"))))
