// The mask explorer: two published masks of a layer over each other, and what they share in numbers.
(function () {
  "use strict";

  const SIDES = ["first", "second"];

  const number = (value) => value.toLocaleString("en");
  const percent = (share) => (isFinite(share) ? `${(100 * share).toFixed(1)}\u00a0%` : "\u2013");
  const density = (mask) => `${(100 * mask.density).toPrecision(3)}\u00a0%`;

  function unpack(text) {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer().then((content) => new Uint8Array(content));
  }

  // Every mask begins with a byte of its own, a layer within it with any bit.
  async function prepare(study) {
    let start = 0;
    study.layers = study.layers.map(([name, shape]) => {
      const layer = { name, shape, start, size: shape.reduce((a, b) => a * b) };
      start += layer.size;
      return layer;
    });
    study.masks = study.masks.map(([label, seed, density, accuracy], index) => (
      { index, label, seed, density, accuracy, start: 8 * index * Math.ceil(start / 8) }
    ));
    study.bits = await unpack(study.bits);
  }

  // Of each weight of a layer: 1 if the first mask keeps it, 2 if the second does, 3 if both do.
  function keepers(study, [first, second], layer) {
    const kept = (mask, weight) => {
      const bit = mask.start + layer.start + weight;
      return (study.bits[bit >> 3] >> (7 - (bit & 7))) & 1;
    };
    return Uint8Array.from({ length: layer.size }, (_, weight) => (
      kept(first, weight) + 2 * kept(second, weight)
    ));
  }

  // How many weights each keeps, how many both, and how many both would if each drew its own.
  function count(layer, states) {
    const found = [0, 0, 0, 0];
    states.forEach((state) => { found[state] += 1; });
    const first = found[1] + found[3], second = found[2] + found[3];
    return { name: layer.name, size: layer.size, first, second, both: found[3],
      drawn: first * second / layer.size };
  }

  const shared = (row, both) => both / (row.first + row.second - both);

  // Output channels run to the right, input channels down; a kernel is a block.
  function draw(canvas, room, shape, states, colours) {
    const [outputs, inputs, height = 1, width = 1] = shape;
    const gap = room > 4 * outputs * width ? 1 : 0;
    const cell = Math.max(1, Math.min(14, Math.floor((room - gap * outputs) / (outputs * width))));
    canvas.width = outputs * (width * cell + gap);
    canvas.height = inputs * (height * cell + gap);
    const pen = canvas.getContext("2d");
    states.forEach((state, weight) => {
      const x = weight % width, y = Math.floor(weight / width) % height;
      const kernel = Math.floor(weight / (width * height));
      const left = Math.floor(kernel / inputs) * (width * cell + gap) + x * cell;
      pen.fillStyle = colours[state];
      pen.fillRect(left, (kernel % inputs) * (height * cell + gap) + y * cell, cell, cell);
    });
  }

  function fill(select, texts, values = texts, wanted = select.value) {
    select.replaceChildren(...texts.map((text, place) => new Option(text, values[place])));
    const place = values.map(String).indexOf(String(wanted));
    select.selectedIndex = Math.max(0, place);
  }

  function explore(form, studies) {
    const aim = { first: 0.05, second: 0.05 };  // densities; each side shows the nearest it has
    const pictures = form.querySelector("[tabindex]");
    const field = (side, part) => form.elements[`${side}-${part}`];
    const chosen = () => {
      const study = studies[form.elements.study.value];
      return [study, SIDES.map((side) => study.masks[field(side, "density").value])];
    };

    function offer() {
      const study = studies[form.elements.study.value];
      fill(form.elements.layer, study.layers.map((layer) => layer.name));
      SIDES.forEach((side) => {
        const distance = (mask) => Math.abs(Math.log(mask.density / aim[side]));
        const labels = [...new Set(study.masks.map((mask) => mask.label))];
        fill(field(side, "method"), labels);
        const named = study.masks.filter((mask) => mask.label === field(side, "method").value);
        fill(field(side, "seed"), [...new Set(named.map((mask) => mask.seed))]);
        const own = named.filter((mask) => String(mask.seed) === field(side, "seed").value);
        own.sort((one, other) => other.density - one.density);
        const nearest = own.reduce((one, other) => (distance(other) < distance(one) ? other : one));
        fill(field(side, "density"), own.map(density), own.map((mask) => mask.index), nearest.index);
      });
    }

    function paint() {
      const [study, masks] = chosen();
      const layer = study.layers[form.elements.layer.selectedIndex];
      const states = keepers(study, masks, layer);
      const style = getComputedStyle(form);
      const [none, first, second, both] = ["neither", ...SIDES, "both"].map(
        (name) => style.getPropertyValue(`--${name}`));
      const beside = form.elements.view.value === "beside";
      const [one, other] = pictures.children;
      other.hidden = !beside;
      const room = pictures.clientWidth / (beside ? 2 : 1) - 8;
      draw(one, room, layer.shape, states, [none, first, beside ? none : second, both]);
      draw(other, room, layer.shape, states, [none, none, second, both]);
    }

    function tell() {
      const [study, masks] = chosen();
      const rows = study.layers.map((layer) => count(layer, keepers(study, masks, layer)));
      const sum = (part) => rows.reduce((total, row) => total + row[part], 0);
      const all = { name: "all layers" };
      ["size", "first", "second", "both", "drawn"].forEach((part) => { all[part] = sum(part); });
      const place = form.elements.layer.selectedIndex;
      form.querySelector("tbody").replaceChildren(...[...rows, all].map((row, index) => {
        const line = document.createElement("tr");
        line.className = index === place ? "chosen" : "";
        line.append(document.createElement("th"));
        line.firstChild.scope = "row";
        line.firstChild.textContent = row.name;
        [number(row.size), number(row.first), number(row.second), number(row.both),
          percent(shared(row, row.both)), percent(shared(row, row.drawn))].forEach((text) => {
          line.insertCell().textContent = text;
        });
        return line;
      }));
      const said = masks.map((mask) => `${mask.label}, seed ${mask.seed}, at ${density(mask)}` +
        (mask.accuracy === null ? "" : ` (${percent(mask.accuracy / 100)} correct)`));
      const row = rows[place];
      form.querySelector("[role=status]").textContent =
        `${row.name}, ${number(row.size)} weights. ${said[0]} keeps ${number(row.first)}; ` +
        `${said[1]} keeps ${number(row.second)}. Both keep ${number(row.both)}: ` +
        `${percent(shared(row, row.both))} of what either keeps, where chance would give ` +
        `${percent(shared(row, row.drawn))}.`;
    }

    function refresh() {
      offer();
      paint();
      tell();
    }

    form.addEventListener("change", (event) => {
      const [side, part] = event.target.name.split("-");
      if (part === "density") {
        aim[side] = chosen()[1][SIDES.indexOf(side)].density;
        if (side === "first") aim.second = aim.first;  // it follows
      }
      refresh();
    });
    pictures.addEventListener("keydown", (event) => {
      const [select, step] = {
        ArrowLeft: [field("first", "density"), -1], ArrowRight: [field("first", "density"), 1],
        ArrowUp: [form.elements.layer, -1], ArrowDown: [form.elements.layer, 1],
      }[event.key] || [];
      if (!select || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const place = select.selectedIndex + step;
      if (place < 0 || place >= select.length) return;
      select.selectedIndex = place;
      select.dispatchEvent(new Event("change", { bubbles: true }));
    });
    fill(form.elements.study, Object.keys(studies));
    form.hidden = false;
    offer();
    form.elements.layer.selectedIndex = Math.floor(form.elements.layer.length / 2) - 1;
    field("second", "method").selectedIndex = Math.min(1, field("second", "method").length - 1);
    refresh();
    window.addEventListener("resize", paint);
    new MutationObserver(paint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  document.addEventListener("DOMContentLoaded", async () => {
    const form = document.getElementById("explorer");
    if (!form || !window.DecompressionStream) return;
    const studies = JSON.parse(document.getElementById("explorer-masks").textContent);
    await Promise.all(Object.values(studies).map(prepare));
    explore(form, studies);
  });
})();
