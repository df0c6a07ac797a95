"""The page /docs: Swagger UI from this service's own files, with a policy that lets it run those and nothing else."""

import base64
import hashlib
import re
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse

FILES = "/static-offline-docs"
"""Where fastapi-offline has Swagger UI's files."""

SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)

router = APIRouter()


@router.get("/docs", include_in_schema=False)
async def docs() -> HTMLResponse:
    """Shows the interface."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="RaDOGAGA",
        swagger_js_url=f"{FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{FILES}/swagger-ui.css",
        swagger_favicon_url=f"{FILES}/favicon.png",
    )
    page.headers["content-security-policy"] = policy(bytes(page.body).decode())
    return page


def describe_keys(app: FastAPI) -> None:
    """Lets the interface say that keys are needed, so that the page has a place for one."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        schema.setdefault("components", {})["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        schema["security"] = [{"bearer": []}, {"header": []}]
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def policy(page: str) -> str:
    """Returns the policy for a page: its inline scripts run as they are here, and none that anybody adds."""
    scripts = " ".join(f"'sha256-{digest(script)}'" for script in SCRIPT.findall(page))
    return (
        f"default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def digest(script: str) -> str:
    """Returns a script's hash as a policy has it."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
