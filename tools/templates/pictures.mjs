// Makes the pictures of the template browser and of the help pages: opens every graph in a browser, runs it, looks.
//
//   NODE_PATH=/somewhere/node_modules node tools/templates/pictures.mjs http://127.0.0.1:8188
//
// needs: a running ComfyUI with the pack and a file each in models/adiff_localizers and models/adiff_features, whose names
// the loaders show, and what page.mjs needs. With OVERVIEW=folder it also leaves a picture of every
// whole graph there, to look at; ONLY="name,name" makes those of some graphs.

import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { load, open, run, withPage } from "./page.mjs";

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const BASE = process.argv[2] ?? "http://127.0.0.1:8188";
const VIEW = { width: 1700, height: 1000 };
const MARGIN = 70; // pixels of the graph around a node
const THUMBNAIL = 512; // pixels, the wider side
const QUALITY = 85;

// Of each graph: its nodes to show in help pages, and how its results make a thumbnail. A panel is one third of a pair's
// strip (image, mask, change) or a whole picture of a preview.
const GRAPHS = {
  "Generate from a drawn mask": {
    help: ["ADiffLoadDefect", "ADiffLoadSpatialEncoder", "ADiffLoadDemoModel", "ADiffDrawSurface",
           "ADiffAnomalyConditioning", "ADiffKSampler", "ADiffFinishPair", "ADiffSavePairs"],
    columns: 2, rows: [["ADiffSavePairs", "strip"], ["PreviewImage", "whole"]],
  },
  "Generate with learned masks": {
    help: ["ADiffGenerateMasks", "ADiffFilterMasks"], columns: 4, rows: [["ADiffSavePairs", 0], ["ADiffSavePairs", 1]],
  },
  "Stock KSampler re-weighted": {
    help: ["ADiffApplyReweighting"], columns: 3, rows: [["ADiffSavePairs", "strip"]],
  },
  "Compare re-weighting modes": { help: [], columns: 4, rows: [["PreviewImage", "whole"]] },
  "Train a defect from photos": {
    help: ["ADiffLoadDefectDataset", "ADiffTrainDefects", "ADiffTrainMasks", "ADiffSaveLibrary", "ADiffPickDefect",
           "ADiffEditLibrary", "ADiffLoadLibrary", "ADiffMergeLibraries", "ADiffAddShots"],
    columns: 4, rows: [["ADiffSavePairs", 0], ["ADiffSavePairs", 1]],
  },
  "Keep the good pairs": {
    help: ["ADiffFilterPairs", "ADiffExportPairs", "ADiffDescribeShots"],
    columns: 3, rows: [["ADiffSavePairs", 0], ["ADiffSavePairs", 1]],
  },
  "Place masks on an object": {
    help: ["ADiffPlaceMasks"], columns: 4, rows: [["ADiffSavePairs", 0], ["ADiffSavePairs", 1]],
  },
  "Vary the real masks": {
    help: ["ADiffVaryShotMasks"], columns: 4, rows: [["ADiffSavePairs", 0], ["ADiffSavePairs", 1]],
  },
  "Find the guidance": {
    help: ["ADiffFitGuidance"], columns: 4, rows: [["ADiffSavePairs", 0], ["ADiffSavePairs", 1]],
  },
  "Small defect in a large photo": {
    help: ["ADiffCropToMask", "ADiffStitch"], columns: 2, rows: [["ADiffSavePairs", 0], ["PreviewImage", "whole"]],
  },
  "Train and test a localizer": {
    help: ["ADiffPasteBaseline", "ADiffTrainLocalizer", "ADiffLocalize", "ADiffScoreDataset", "ADiffLoadLocalizer"],
    stages: ["4. Learn", "5. Test", "6. Look"], run: true,
  },
  // writes the file that the next two read
  "Train a dual model from photos": {
    help: ["ADiffTrainDual"], columns: 4, rows: [["ADiffSavePairs", 0], ["ADiffSavePairs", 1]],
  },
  "Generate with a dual model": {
    help: ["ADiffLoadDual", "ADiffDualSampler"], columns: 4, rows: [["ADiffSavePairs", 0], ["ADiffSavePairs", 1]],
  },
  "The two methods side by side": { help: [], columns: 4, rows: [["PreviewImage", "whole"]] },
  // runs with the user's files only: a picture of these stages
  "Defect in a prompt with a LoRA": { help: [], stages: ["4. Condition", "5. Paint"] },
};

// What goes into a node that no template uses and that is to be seen at work: [node, output, input], and its values.
const FED = {
  ADiffAddShots: {
    links: [["ADiffFinishPair", "image", "images"], ["ADiffFinishPair", "mask", "masks"],
            ["ADiffLoadDefectDataset", "dataset", "dataset"]],
    values: { product: "metal", defect: "scratch" },
  },
};

// Puts a box of the graph (left, top, width, height) into view; returns where it is on the page.
async function show(page, box, scale) {
  return page.evaluate(([[left, top, width, height], scale]) => {
    const { canvas, ds } = window.app.canvas;
    const edge = canvas.getBoundingClientRect();
    ds.scale = scale;
    ds.offset[0] = 120 / scale - left;
    ds.offset[1] = 120 / scale - top;
    window.app.canvas.deselectAll?.();
    window.app.canvas.setDirty(true, true);
    return { x: edge.x + 120, y: edge.y + 120, width: width * scale, height: height * scale };
  }, [box, scale]);
}

async function shoot(page, box, scale, file) {
  const clip = await show(page, box, scale);
  await page.waitForTimeout(700);
  await page.screenshot({ path: file, clip, type: "jpeg", quality: QUALITY });
  console.log(path.relative(ROOT, file), fs.statSync(file).size);
}

// Puts a node that no template uses above all others, by itself or fed by them.
async function addNode(page, type) {
  await page.evaluate(([type, fed]) => {
    const [node, preview] = [type, "PreviewAny"].map((one) => window.LiteGraph.createNode(one));
    const slot = (slots, name) => slots.findIndex((one) => one.name === name);
    const top = Math.min(...window.app.graph.nodes.map((one) => one.pos[1])) - 1000;
    node.pos = [0, top];
    node.size = fed ? [440, node.computeSize()[1] + 230] : [300, node.computeSize()[1]];
    window.app.graph.add(node);
    if (!fed) return;
    for (const [name, value] of Object.entries(fed.values)) node.widgets.find((one) => one.name === name).value = value;
    for (const [other, output, input] of fed.links) {
      const source = window.app.graph.nodes.find((one) => one.type === other);
      source.connect(slot(source.outputs, output), node, slot(node.inputs, input));
    }
    preview.pos = [800, top]; // it is run for something to be shown
    window.app.graph.add(preview);
    node.connect(slot(node.outputs, "report"), preview, 0);
  }, [type, FED[type]]);
  if (FED[type]) await run(page, BASE);
}

async function helpPicture(page, type) {
  const there = await page.evaluate((type) => window.app.graph.nodes.some((one) => one.type === type), type);
  if (!there) await addNode(page, type);
  const box = await page.evaluate(([type, margin]) => {
    const node = window.app.graph.nodes.find((one) => one.type === type);
    return [node.pos[0] - margin, node.pos[1] - 54, node.size[0] + 2 * margin, node.size[1] + 80];
  }, [type, MARGIN]);
  await shoot(page, box, 1, path.join(ROOT, "web", "docs", "images", `${type}.jpg`));
}

async function stagePicture(page, stages, width, file) {
  const box = await page.evaluate((stages) => {
    const groups = window.app.graph.groups.filter((group) => !stages || stages.includes(group.title));
    const boxes = groups.map((group) => [...group.pos, ...group.size]);
    const left = Math.min(...boxes.map((b) => b[0]));
    const top = Math.min(...boxes.map((b) => b[1]));
    return [left - 20, top - 20, Math.max(...boxes.map((b) => b[0] + b[2])) - left + 40,
            Math.max(...boxes.map((b) => b[1] + b[3])) - top + 40];
  }, stages);
  await shoot(page, box, Math.min(width / box[2], (VIEW.height - 200) / box[3]), file);
}

async function resultPicture(page, { columns, rows }, file) {
  const data = await page.evaluate(([columns, rows, width, quality]) => {
    const panels = [];
    for (const [type, part] of rows) {
      for (const node of window.app.graph.nodes.filter((one) => one.type === type)) {
        for (const image of node.imgs ?? []) {
          const third = image.naturalHeight; // pictures of the strip are square: image, mask, and change if there is one
          const whole = [image, 0, image.naturalWidth];
          if (part === "whole") panels.push(whole);
          else if (part === "strip") panels.push([image, 0, third], [image, third, third], [image, 2 * third, third]);
          else panels.push([image, part * third, third]);
        }
      }
    }
    const cell = Math.floor(width / columns);
    const canvas = document.createElement("canvas");
    canvas.width = cell * columns;
    canvas.height = cell * Math.ceil(panels.length / columns);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    panels.forEach(([image, left, wide], i) => {
      const place = [(i % columns) * cell, Math.floor(i / columns) * cell];
      context.drawImage(image, left, 0, wide, image.naturalHeight, place[0] + 1, place[1] + 1, cell - 2, cell - 2);
    });
    return canvas.toDataURL("image/jpeg", quality / 100);
  }, [columns, rows, THUMBNAIL, QUALITY]);
  fs.writeFileSync(file, Buffer.from(data.split(",")[1], "base64"));
  console.log(path.relative(ROOT, file), fs.statSync(file).size);
}

await withPage(VIEW, async (page) => {
  await load(page, BASE);
  await page.evaluate(() => { window.app.canvas.min_font_size_for_lod = 0; }); // draws texts however small
  await page.evaluate(() => window.app.extensionManager.command.execute("Comfy.Canvas.ToggleMinimap")).catch(() => 0);
  fs.mkdirSync(path.join(ROOT, "web", "docs", "images"), { recursive: true });
  for (const [name, graph] of Object.entries(GRAPHS)) {
    if (process.env.ONLY && !process.env.ONLY.split(",").includes(name)) continue;
    const thumbnail = path.join(ROOT, "workflows", `${name}.jpg`);
    await page.evaluate(() => window.app.refreshComboInNodes()); // a graph before this one may have written a file
    const missing = await open(page, JSON.parse(fs.readFileSync(path.join(ROOT, "workflows", `${name}.json`))));
    if (missing.length) throw new Error(`${name}: missing ${missing}`);
    if (graph.rows || graph.run) await run(page, BASE);
    if (graph.rows) {
      await resultPicture(page, graph, thumbnail);
    } else {
      await stagePicture(page, graph.stages, 2 * THUMBNAIL, thumbnail);
    }
    for (const type of graph.help) await helpPicture(page, type);
    if (process.env.OVERVIEW) {
      await stagePicture(page, null, VIEW.width - 250, path.join(process.env.OVERVIEW, `${name}.jpg`));
    }
  }
});
