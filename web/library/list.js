// A list of any length of which only the rows in view exist.

const AROUND = 6; // rows above and below the view

export class VirtualList {
  // frame: the element that scrolls. draw(item): a row's element. Items are { height, key, ... }.
  constructor(frame, draw) {
    this.frame = frame;
    this.draw = draw;
    this.items = [];
    this.tops = [0];
    this.shown = new Map();
    this.ground = document.createElement("div");
    this.ground.className = "adiff-ground";
    frame.append(this.ground);
    frame.addEventListener("scroll", () => this.update(), { passive: true });
    new ResizeObserver(() => this.update()).observe(frame);
  }

  show(items) {
    this.items = items;
    this.tops = [0];
    for (const item of items) this.tops.push(this.tops.at(-1) + item.height);
    this.ground.style.height = `${this.tops.at(-1)}px`;
    this.ground.replaceChildren();
    this.shown.clear();
    this.update();
  }

  update() {
    const { scrollTop, clientHeight } = this.frame;
    const first = Math.max(0, this.at(scrollTop) - AROUND);
    const last = Math.min(this.items.length, this.at(scrollTop + clientHeight) + AROUND + 1);
    for (const [index, row] of this.shown) {
      if (index >= first && index < last) continue;
      row.remove();
      this.shown.delete(index);
    }
    for (let index = first; index < last; index += 1) {
      if (this.shown.has(index)) continue;
      const row = this.draw(this.items[index]);
      row.style.transform = `translateY(${this.tops[index]}px)`;
      row.style.height = `${this.items[index].height}px`;
      this.shown.set(index, row);
      this.ground.append(row);
    }
  }

  reveal(key) {
    const index = this.items.findIndex((item) => item.key === key);
    if (index < 0) return;
    const [top, bottom] = [this.tops[index], this.tops[index + 1]];
    const { scrollTop, clientHeight } = this.frame;
    if (top < scrollTop) this.frame.scrollTop = top;
    else if (bottom > scrollTop + clientHeight) this.frame.scrollTop = bottom - clientHeight;
  }

  // The number of the item at so many pixels from the top.
  at(pixels) {
    let [low, high] = [0, this.items.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.tops[middle + 1] <= pixels) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
