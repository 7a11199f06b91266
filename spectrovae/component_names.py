"""What the components of a prior are called."""

from collections.abc import Sequence


class ComponentNames:
    """The part of `SpectroVAE` that keeps names for the components of its prior."""

    num_components: int

    @property
    def component_names(self) -> tuple[str, ...] | None:
        """Names that the user gave the prior's components, or None; saved with the model."""
        return self._component_names

    @component_names.setter
    def component_names(self, names: Sequence[str] | None) -> None:
        if names is not None:
            is_list = not isinstance(names, str) and all(isinstance(name, str) and name for name in names)
            if not is_list or not len(set(names)) == len(names) == self.num_components:
                raise ValueError(
                    f"`component_names` must be None or {self.num_components} names that differ, one for each "
                    f"component. Received: component_names={names!r}"
                )
            names = tuple(names)
        self._component_names = names

    def component_name(self, component: int) -> str:
        """Return what a component is called: the user's name for it, else `component` and its number."""
        return self.component_names[component] if self.component_names else f"component {component}"

    def component_index(self, component: int | str | None) -> int | None:
        """Return the index of a component that is given by its name; an index or None is returned as it is.

        Raises:
            ValueError: If no component has that name.
        """
        if not isinstance(component, str):
            return component
        names = list(self.component_names or ())
        if component not in names:
            raise ValueError(
                f"`component` must be an index or one of the names {names}, which are set with "
                f"model.component_names. Received: component={component!r}"
            )
        return names.index(component)
