// Shows the library's picture of the chosen defect in Load Defect. Nothing of the front end is replaced: the picture is
// one more widget of this node, without a value in graph or prompt.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const SIDE = 148; // pixels, at least
const left = new Map(); // pictures of nodes that were removed while they were seen

// Undoing makes a node anew under its id; Nodes 2.0 goes on showing what it had put into the page for the one before.
function keepPlace(node, element) {
  const place = () => `${node.graph?.id} ${node.id}`;
  const { onRemoved } = node;
  node.onRemoved = function (...given) {
    if (element.isConnected) left.set(place(), element);
    onRemoved?.apply(this, given);
  };
  return () => {
    const before = left.get(place());
    left.delete(place());
    if (before?.isConnected) before.replaceWith(element);
  };
}

function addPicture(node, chosen) {
  const element = document.createElement("div"); // an <img> would make the node as large as the picture
  element.className = "adiff-chosen";
  element.style.background = "center / contain no-repeat";
  let side = 0;
  const widget = node.addDOMWidget("adiff_picture", "adiff_picture", element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => side,
  });
  widget.serialize = false;

  const show = (url) => {
    side = url ? SIDE : 0;
    element.style.backgroundImage = url ? `url("${url}")` : "none";
    element.style.minHeight = `${side}px`; // what counts in a node that is no drawing
    const [width, height] = node.computeSize();
    node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
    node.setDirtyCanvas(true, true);
  };

  const picture = new Image();
  picture.onload = () => show(picture.src);
  picture.onerror = () => show(null); // the defect has no picture, or its library is not there
  const update = () => {
    picture.src = api.apiURL(`/adiff/preview?defect=${encodeURIComponent(chosen.value)}`);
  };
  return { element, update };
}

app.registerExtension({
  name: "adiff.picture",
  nodeCreated(node) {
    if (node.comfyClass !== "ADiffLoadDefect") return;
    const chosen = node.widgets?.find((widget) => widget.name === "defect");
    if (!chosen) return;
    const { element, update } = addPicture(node, chosen);
    const settle = keepPlace(node, element);

    const { callback } = chosen; // called when another defect is chosen
    chosen.callback = function (...given) {
      callback?.apply(this, given);
      update();
    };
    const { onConfigure } = node; // called when a saved graph has set the value
    node.onConfigure = function (...given) {
      onConfigure?.apply(this, given);
      settle();
      update();
    };
    if (chosen.value) update();
  },
});
