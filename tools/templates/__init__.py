"""The graphs that ComfyUI's template browser shows, as code; the files in workflows/ are written from it."""
