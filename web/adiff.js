// Shows the library's picture of the chosen defect in Load Defect. Nothing of the front end is replaced: the picture is
// one more widget of this node, without a value in graph or prompt.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const MARGIN = 10; // pixels around the picture
const SIDE = 128; // pixels, at least

function addPicture(node, chosen) {
  const picture = new Image();
  let shown = false;
  picture.onload = () => {
    shown = true;
    const [width, height] = node.computeSize();
    node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
    node.setDirtyCanvas(true, true);
  };
  picture.onerror = () => {
    shown = false; // the defect has no picture, or its library is not there
    node.setDirtyCanvas(true, true);
  };

  node.addCustomWidget({
    name: "adiff_picture",
    type: "custom",
    value: "",
    serialize: false,
    options: { serialize: false },
    y: 0,
    computeLayoutSize: () => ({ minHeight: shown ? SIDE + 2 * MARGIN : 0, minWidth: 1 }),
    draw(context, owner, width, y) {
      if (!shown) return;
      const room = [width - 2 * MARGIN, owner.size[1] - y - 2 * MARGIN];
      const scale = Math.min(room[0] / picture.naturalWidth, room[1] / picture.naturalHeight);
      if (scale <= 0) return;
      const size = [picture.naturalWidth * scale, picture.naturalHeight * scale];
      context.drawImage(picture, (width - size[0]) / 2, y + MARGIN, ...size);
    },
  });

  return () => {
    picture.src = api.apiURL(`/adiff/preview?defect=${encodeURIComponent(chosen.value)}`);
  };
}

app.registerExtension({
  name: "adiff.picture",
  nodeCreated(node) {
    if (node.comfyClass !== "ADiffLoadDefect") return;
    const chosen = node.widgets?.find((widget) => widget.name === "defect");
    if (!chosen) return;
    const update = addPicture(node, chosen);

    const { callback } = chosen; // called when another defect is chosen
    chosen.callback = function (...given) {
      callback?.apply(this, given);
      update();
    };
    const { onConfigure } = node; // called when a saved graph has set the value
    node.onConfigure = function (...given) {
      onConfigure?.apply(this, given);
      update();
    };
    if (chosen.value) update();
  },
});
