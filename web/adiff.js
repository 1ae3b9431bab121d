// Shows the library's picture of the chosen defect in Load Defect, and each picture that a node gives once. Nothing of
// the front end is replaced: the defect's picture is one more widget of its node, without a value in graph or prompt.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { say } from "./library/words.js";

const SIDE = 148; // pixels, at least
const WIDTH = 380; // of a new node: a defect's name ends in what tells it from others

// The elements that the page may show for a node: undoing makes it anew under its id, and Nodes 2.0 goes on showing
// what it had put into the page for the one before.
function elementsOf(node, element) {
  element.dataset.node = `${node.graph?.id} ${node.id}`;
  const others = [...document.querySelectorAll(".adiff-of-node")];
  return [element, ...others.filter((other) => other !== element && other.dataset.node === element.dataset.node)];
}

// Its room is there from the start: a node that grew once the picture had come would be one more step to undo.
function addPicture(node, chosen) {
  const element = document.createElement("div"); // an <img> would make the node as large as the picture
  element.className = "adiff-of-node";
  element.style.background = "center / contain no-repeat";
  element.style.minHeight = `${SIDE}px`; // what counts in a node that is no drawing
  const widget = node.addDOMWidget("adiff_picture", "adiff_picture", element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => SIDE,
  });
  widget.serialize = false;
  widget.label = say("picture"); // where apps are built of widgets
  // the properties panel draws the widgets of a node too and would leave its own width here
  Object.defineProperty(widget, "width", { get: () => undefined, set: () => {} });
  const [width, height] = node.computeSize();
  node.setSize([Math.max(WIDTH, width), Math.max(node.size[1], height)]);

  const show = (url) => {
    for (const { style } of elementsOf(node, element)) style.backgroundImage = url ? `url("${url}")` : "none";
    node.setDirtyCanvas(true, true);
  };

  const picture = new Image();
  picture.onload = () => show(picture.src);
  picture.onerror = () => show(null); // the defect has no picture, or its library is not there
  const given = () => node.inputs?.some(({ widget: one }, slot) => one?.name === chosen.name && node.isInputConnected(slot));
  return () => { // a choice that a link gives, as from the subgraph around the node, is not the widget's
    picture.src = given() ? "" : api.apiURL(`/adiff/preview?defect=${encodeURIComponent(chosen.value)}`);
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
    const { onConnectionsChange } = node;
    node.onConnectionsChange = function (...given) {
      onConnectionsChange?.apply(this, given);
      update();
    };
    if (chosen.value) update();
  },
});

// What keeps the live pictures of nodes; it has no door of its own for extensions, and may not be there. Older front
// ends let nothing be taken from it: they show the last live picture alone, which is the one that the node gives.
function livePictures() {
  return document.getElementById("vue-app")?.__vue_app__?.config.globalProperties.$pinia?._s.get("nodeOutput");
}

// The front end goes on showing a node's last live picture in the place of what the node gives, and Nodes 2.0 shows it
// once more below that.
app.registerExtension({
  name: "adiff.live",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("ADiff")) return;
    const { onExecuted } = node; // called when it has given something
    node.onExecuted = function (output, ...more) {
      onExecuted?.call(this, output, ...more);
      if (!output?.images?.length) return;
      const place = app.extensionManager.workflow?.nodeToNodeLocatorId?.(this);
      livePictures()?.revokePreviewsByLocatorId?.(place);
    };
  },
});
