"""Masks out of annotations: what people mark with labelme, CVAT, Label Studio and their like becomes a data set.

| format | what is given | marks |
|---|---|---|
| COCO | a .json, or a folder with them | polygons, run lengths; boxes where there is nothing else |
| labelme | a folder of S.json, beside the photos | polygons, rectangles, circles, masks |
| Supervisely | a project's folder, or a data set's | polygons, masks, rectangles |
| YOLO | data.yaml, or its folder | polygons, boxes |
| CVAT | annotations.xml, or its folder | polygons, masks, ellipses, boxes |
| Pascal VOC | a folder with SegmentationClass | class numbers or colours as pixels |
| Pascal VOC, boxes | a folder of S.xml | boxes, polygons |
| Severstal | train.csv, or its folder | run lengths |
| masks | a folder with the photos | pictures |
"""

from .dataset import Imported, write_dataset
from .marks import Annotated, Mark
from .reading import is_annotated, read_annotations

__all__ = ["Annotated", "Imported", "Mark", "is_annotated", "read_annotations", "write_dataset"]
