"""Makes the typed client from the interface's own description.

    tdb serve &
    python generate.py http://127.0.0.1:8000 > src/tdb/client.py

The argument is a server's address, or a file that holds its /openapi.json. The tests compare the committed client with
a fresh one, so that it cannot fall behind the server.
"""

import json
import keyword
import sys
import textwrap
import urllib.request

HEADER = '''"""The interface of `tdb serve`, typed. Made by generate.py from /openapi.json: do not edit."""

from __future__ import annotations

from typing import Any, Iterator, Literal, Required, TypedDict, Union

from .transport import Transport


'''
SIMPLE = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None", "object": "dict[str, Any]"}
# How the transport reads answers, by their media types.
READ = {"application/json": "request", "application/x-ndjson": "stream"}


def main() -> None:
    (source,) = sys.argv[1:] or sys.exit(__doc__)
    print(client(load(source)), end="")


def load(source: str) -> dict:
    if source.startswith("http"):
        with urllib.request.urlopen(source.rstrip("/") + "/openapi.json") as answer:
            return json.load(answer)
    with open(source, encoding="utf-8") as file:
        return json.load(file)


def client(document: dict) -> str:
    """The text of the module."""
    schemas = document["components"]["schemas"]
    types = [definition(name, schema) for name, schema in sorted(schemas.items())]
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    methods = [function(path, method, operation) for path, method, operation in operations]
    described = 'class Client(Transport):\n    """Asks a server. Each route is a method of its own name."""\n\n'
    return HEADER + "\n\n".join(types) + "\n\n" + described + "\n".join(methods)


def definition(name: str, schema: dict) -> str:
    """A schema as a type of its own."""
    if "properties" not in schema:
        return f"{name} = {written(schema)}\n"
    required = schema.get("required", [])
    fields = {key: field(part, key in required) for key, part in schema["properties"].items()}
    if not all(key.isidentifier() and not keyword.iskeyword(key) for key in fields):
        entries = "".join(f"    {key!r}: {text},\n" for key, text in fields.items())
        return f"{name} = TypedDict({name!r}, {{\n{entries}}}, total=False)\n"
    lines = "".join(f"    {key}: {text}\n" for key, text in fields.items())
    return f"class {name}(TypedDict, total=False):\n{doc(schema.get('description'), 4)}{lines or '    pass' + chr(10)}"


def field(schema: dict, required: bool) -> str:
    text = written(schema)
    return f"Required[{text}]" if required else text


def written(schema: dict) -> str:
    """A schema as it stands in an annotation."""
    if "$ref" in schema:
        return repr(schema["$ref"].rsplit("/", 1)[-1])
    if "enum" in schema:
        return f"Literal[{', '.join(map(repr, schema['enum']))}]"
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            parts = list(dict.fromkeys(written(part) for part in schema[key]))
            return parts[0] if len(parts) == 1 else f"Union[{', '.join(parts)}]"
    if schema.get("type") == "array":
        return f"list[{written(schema['items'])}]" if "items" in schema else "list[Any]"
    if "additionalProperties" in schema and isinstance(schema["additionalProperties"], dict):
        return f"dict[str, {written(schema['additionalProperties'])}]"
    return SIMPLE.get(schema.get("type", ""), "Any")


def function(path: str, method: str, operation: dict) -> str:
    """A route as a method."""
    name = operation["operationId"].split("-", 1)[-1]
    media_type, answer = content(operation["responses"]["200"])
    sent = READ.get(media_type, "text")
    returned = f"Iterator[{written(answer)}]" if sent == "stream" else written(answer)
    parameters = operation.get("parameters", [])
    arguments = [argument(p) for p in parameters]
    call = [repr(method.upper()), repr(path)]
    if "requestBody" in operation:
        arguments.append(f"body: {written(content(operation['requestBody'])[1])}")
        call.append("body=body")
    if parameters:
        call.append("query={" + ", ".join(f"{p['name']!r}: {p['name']}" for p in parameters) + "}")
    head = f"    def {name}({', '.join(['self', *arguments])}) -> {returned}:\n"
    return head + doc(operation.get("summary"), 8) + f"        return self.{sent}({', '.join(call)})\n"


def argument(parameter: dict) -> str:
    text = f"{parameter['name']}: {written(parameter['schema'])}"
    return text if parameter.get("required") else f"{text} | None = None"


def content(part: dict) -> tuple[str, dict]:
    """The media type of what is sent, and its schema."""
    ((media_type, described),) = part["content"].items()
    return media_type, described["schema"]


def doc(text: str | None, indent: int) -> str:
    if not text:
        return ""
    pad = " " * indent
    text = text.replace("\\", "\\\\").replace('"""', "'''")
    lines = textwrap.wrap(text, 118 - indent - 3)
    if len(lines) == 1:
        return f'{pad}"""{lines[0]}"""\n\n' if indent == 4 else f'{pad}"""{lines[0]}"""\n'
    body = "\n".join(pad + line for line in lines[1:])
    return f'{pad}"""{lines[0]}\n{body}\n{pad}"""\n' + ("\n" if indent == 4 else "")


if __name__ == "__main__":
    main()
