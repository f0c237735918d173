"""Validate what the programs print against docs/schema/*.json."""
import json
import os

import jsonschema

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "docs", "schema")
_validators = {}


def validator(name):
    if name not in _validators:
        with open(os.path.join(FOLDER, name + ".json")) as file:
            schema = json.load(file)
        jsonschema.Draft202012Validator.check_schema(schema)
        _validators[name] = jsonschema.Draft202012Validator(schema)
    return _validators[name]


def validate(name, obj):
    """Raise AssertionError with every difference between obj and the schema of that name."""
    errors = [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in validator(name).iter_errors(obj)]
    if errors:
        raise AssertionError(f"not as {name}.json says: " + "; ".join(errors[:10]))


def names():
    return sorted(name[:-5] for name in os.listdir(FOLDER) if name.endswith(".json"))
