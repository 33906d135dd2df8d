"""The page of the HTTP API, from its OpenAPI document."""

from __future__ import annotations

from typing import Any

from docs.generator.text import cell, code, table

HEAD = """# HTTP: every path and field

Made from the OpenAPI document that `bakeoff api` serves at `/openapi.json`. How to use it stands in
[the HTTP API](../api.md).
"""
METHODS = ("get", "post", "put", "patch", "delete")


def page(document: dict[str, Any]) -> str:
    """Paths by tag, then the schemas that they name."""
    parts = [HEAD]
    by_tag: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                said = methods[method]
                by_tag.setdefault((said.get("tags") or ["other"])[0], []).append(_operation(path, method, said))
    for tag, operations in by_tag.items():
        parts += [f"## {tag}", "", *operations]
    parts += ["## Schemas", ""]
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts.append(_schema(name, schema))
    return "\n".join(parts)


def _operation(path: str, method: str, said: dict[str, Any]) -> str:
    given = [
        (code(one["name"]), one["in"], _type(one.get("schema", {})), "yes" if one.get("required") else "", _said(one))
        for one in said.get("parameters", [])
    ]
    bodies = [
        f"Body: {code(media)} {_type(one.get('schema', {}))}\n"
        for media, one in said.get("requestBody", {}).get("content", {}).items()
    ]
    answers = [
        (status, _answer(one), _prose(one.get("description"))) for status, one in sorted(said["responses"].items())
    ]
    title = f"### {method.upper()} {path}".replace("{", "\\{")
    return "\n".join(
        [
            *(title, "", _prose(said.get("description") or said.get("summary")), ""),
            table(("parameter", "in", "type", "required", "meaning"), given),
            *bodies,
            table(("answer", "body", "meaning"), answers),
        ]
    )


def _answer(response: dict[str, Any]) -> str:
    return ", ".join(_type(one.get("schema", {})) or code(media) for media, one in response.get("content", {}).items())


def _said(parameter: dict[str, Any]) -> str:
    return cell(parameter.get("description") or parameter.get("schema", {}).get("description", ""))


def _schema(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        (
            code(key),
            _type(one),
            "yes" if key in required else code(one.get("default") or ""),
            _prose(one.get("description")),
        )
        for key, one in schema.get("properties", {}).items()
    ]
    parts = [f"### {name}", "", _prose(schema.get("description")), ""]
    if "enum" in schema:
        parts += [f"One of {', '.join(code(one) for one in schema['enum'])}.", ""]
    parts.append(table(("field", "type", "default", "meaning"), rows))
    return "\n".join(parts)


def _presence(field: dict[str, Any], *, needed: bool) -> str:
    return "required" if needed else code(field.get("default") or "")


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words; those that have a name are linked."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    for word, joined in (("anyOf", " or "), ("oneOf", " or "), ("allOf", " and ")):
        if word in schema:
            return joined.join(dict.fromkeys(_type(one) for one in schema[word] if one.get("type") != "null"))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {})) or 'anything'}"
    if "enum" in schema or "const" in schema:
        return ", ".join(code(one) for one in schema.get("enum", [schema.get("const")]))
    return " ".join([schema.get("format") or schema.get("type") or "", *_bounds(schema)]).strip()


def _bounds(schema: dict[str, Any]) -> list[str]:
    words = {"minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
    said = [f"{sign} {schema[key]:g}" for key, sign in words.items() if isinstance(schema.get(key), int | float)]
    if "maxLength" in schema:
        said.append(f"(at most {schema['maxLength']} characters)")
    if "maxItems" in schema:
        said.append(f"(at most {schema['maxItems']})")
    return said


def _prose(text: str | None) -> str:
    return " ".join((text or "").replace("<", "&lt;").split())
