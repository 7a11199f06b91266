"""Saved models: what is checked before anything is made of a file that somebody else may have written."""

from typing import Any

import keras


def check_config(config: dict[str, Any], newest_version: int, **classes: type) -> dict[str, Any]:
    """Return the arguments in a saved configuration of a model, if this version can read it.

    Args:
        config: The configuration, as `get_config` returned it.
        newest_version: The newest format that this version reads.
        **classes: For each nested object the class that it must have, or be derived from. Others could make weights of
            any size.

    Raises:
        ValueError: If the format is newer, or a nested object is missing or of another class.
    """
    config = dict(config)
    version = config.pop("format_version", newest_version)
    if not isinstance(version, int) or version > newest_version:
        raise ValueError(
            f"The model was saved by a newer spectrovae, in format {version}; this one reads formats up to "
            f"{newest_version}. Upgrade it: pip install --upgrade spectrovae"
        )
    for name, expected in classes.items():
        nested = config.get(name)
        kind = nested.get("registered_name") or nested.get("class_name") if isinstance(nested, dict) else nested
        registered = keras.saving.get_registered_object(kind) if isinstance(kind, str) else None
        is_custom = isinstance(nested, dict) and registered is None  # a class of the user's own, which Keras looks for
        if not is_custom and not (isinstance(registered, type) and issubclass(registered, expected)):
            raise ValueError(f"The model's {name} must be a {expected.__name__}. Received: {name}={kind!r}")
    return config
