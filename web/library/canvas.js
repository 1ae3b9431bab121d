// Defects on the canvas: a loader node for one, the nodes that name one that was renamed, and the list of all.

import { app } from "../../../scripts/app.js";

export const KIND = "application/x-adiff-defect"; // what is dragged
const LOADER = "ADiffLoadDefect";
const STEP = 40; // pixels between nodes added one after the other

function chosenIn(node) {
  return node?.comfyClass === LOADER ? node.widgets?.find((widget) => widget.name === "defect") : undefined;
}

// Whether a loader is told its defect by another node: what its own widget says does not count then.
function isTold(node) {
  return node.inputs?.some((input) => input.widget?.name === "defect" && input.link != null);
}

// The widgets in which a node may name a defect: a loader's own; any of a subgraph's, which may stand for a loader's in it.
function choicesIn(node) {
  return (node.subgraph ? node.widgets ?? [] : [chosenIn(node)]).filter((widget) => widget?.options);
}

function choose(node, label, widget = chosenIn(node)) {
  const { values } = widget.options;
  if (Array.isArray(values) && !values.includes(label)) values.push(label);
  widget.value = label;
  widget.callback?.(label, app.canvas, node);
  node.setDirtyCanvas(true, true);
}

// All nodes, those in subgraphs too.
function* nodesOf(graph) {
  for (const node of graph?.nodes ?? []) {
    yield node;
    if (node.subgraph) yield* nodesOf(node.subgraph);
  }
}

function changed() {
  const tracker = app.extensionManager.workflow?.activeWorkflow?.changeTracker;
  if (tracker?.captureCanvasState) tracker.captureCanvasState();
  else tracker?.checkState?.(); // in older front ends
}

function middle() {
  const [left, top, width, height] = app.canvas.ds.visible_area;
  const scale = Math.max(window.devicePixelRatio ?? 1, 1);
  return [left + width / scale / 2 - 190, top + height / scale / 2 - 120];
}

// Adds a loader of the defect at a place of the graph, in the middle of the view if none is given.
export function addLoader(label, place) {
  const graph = app.canvas.graph ?? app.graph;
  const node = window.LiteGraph.createNode(LOADER);
  let [x, y] = place ?? middle();
  const taken = () => graph.nodes.some((other) => other.pos[0] === x && other.pos[1] === y);
  while (taken()) [x, y] = [x + STEP, y + STEP];
  node.pos = [x, y];
  graph.add(node);
  choose(node, label);
  app.canvas.selectNode?.(node);
  changed();
  return node;
}

// Loaders in the graph that name one of the defects name the other: renames is { old label: new label }.
export function renameInGraph(renames) {
  for (const node of nodesOf(app.graph)) {
    for (const widget of choicesIn(node)) if (Object.hasOwn(renames, widget.value)) choose(node, renames[widget.value], widget);
  }
}

// The loaders' lists, and that of nodes to come, are those of the libraries.
export function offer(labels) {
  const lists = new Set();
  const { nodeData } = window.LiteGraph.registered_node_types[LOADER] ?? {};
  lists.add(nodeData?.input?.required?.defect?.[1]?.options);
  lists.add(nodeData?.inputs?.defect?.options);
  for (const node of nodesOf(app.graph)) {
    for (const { options: { values } } of choicesIn(node)) {
      if (!node.subgraph || (Array.isArray(values) && values.some((one) => labels.includes(one)))) lists.add(values);
    }
  }
  for (const list of lists) if (Array.isArray(list)) list.splice(0, list.length, ...labels);
}

function overCanvas(event) {
  const box = app.canvas.canvas.getBoundingClientRect();
  const inside = event.clientX >= box.left && event.clientX < box.right && event.clientY >= box.top && event.clientY < box.bottom;
  return inside && !event.target.closest?.(".adiff-library, .side-bar-panel, .side-tool-bar-container, .p-dialog");
}

// Lets defects be dropped: on a loader that takes it, or elsewhere on the canvas, where a loader comes to stand.
export function takeDrops() {
  const ours = (event) => event.dataTransfer?.types.includes(KIND) && overCanvas(event);
  window.addEventListener("dragover", (event) => {
    if (!ours(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  }, true);
  window.addEventListener("drop", (event) => {
    if (!ours(event)) return;
    event.preventDefault();
    event.stopPropagation();
    const label = event.dataTransfer.getData(KIND);
    const place = app.clientPosToCanvasPos([event.clientX, event.clientY]);
    const under = (app.canvas.graph ?? app.graph).getNodeOnPos(...place);
    if (!chosenIn(under) || isTold(under)) {
      addLoader(label, [place[0], place[1] + window.LiteGraph.NODE_TITLE_HEIGHT]);
      return;
    }
    choose(under, label);
    changed();
  }, true);
}
