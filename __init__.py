"""ComfyUI's door to the pack; every equation lives in adiff/, nodes/ adapts."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Register the model folders and return the nodes; imported only here, so that tests need no ComfyUI."""
    from .nodes import AnomalyDiffusion
    from .nodes.files import register_folders
    from .nodes.routes import register_routes

    register_folders()
    register_routes()
    return AnomalyDiffusion()


__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
