"""Two names that ComfyUI imports; using them fails."""

roi_align = deform_conv2d = None
