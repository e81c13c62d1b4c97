// Opens pages of results in Chromium: node report_page.js CHROMIUM FOLDER. For each NAME in
// FOLDER/names.json, it opens FOLDER/NAME.html, prints its findings as one line of JSON, and leaves
// screenshots beside the page. tests/tools/report_page.rs checks the findings.
"use strict";
const fs = require("fs");
const path = require("path");
const { chromium } = require("playwright-core");

const [executablePath, folder] = process.argv.slice(2);

// For each plot, returns the pixels of its canvas in the colour of each series, and the number of
// colours. Returns null if the page's data cannot be read.
const plots = () => {
  const style = getComputedStyle(document.documentElement);
  let data;
  try {
    data = JSON.parse(document.getElementById("plots").textContent);
  } catch {
    return null;
  }
  return Array.from(document.querySelectorAll(".plot")).map((place, at) => {
    const canvas = place.querySelector("canvas");
    if (canvas === null) return null;
    const { width, height } = canvas;
    const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    const counts = new Map();
    for (let i = 0; i < pixels.length; i += 4) {
      // The key is text, because four bytes have more than 31 bits. Untouched pixels are all zero.
      const key = [pixels[i], pixels[i + 1], pixels[i + 2], pixels[i + 3]].join();
      if (pixels[i + 3] !== 0) counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    const series = data[at].series.map((one, number) => {
      const colour = style.getPropertyValue(`--series-${number % 8}`).trim();
      const hex = (digit) => parseInt(colour.slice(digit, digit + 2), 16);
      const [red, green, blue] = [1, 3, 5].map(hex);
      return { name: one.name, pixels: counts.get(`${red},${green},${blue},255`) ?? 0 };
    });
    const labels = Array.from(place.querySelectorAll(".u-legend .u-label"));
    const legend = labels.map((label) => label.textContent);
    return { colours: counts.size, width, height, series, legend };
  });
};

// Opens a page in its own window, and records all its requests, console messages and errors.
const open = async (browser, file, options) => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const seen = { requests: [], complaints: [] };
  await context.route("**", (route) => {
    seen.requests.push(route.request().url());
    return route.request().url().startsWith("file:") ? route.continue() : route.abort();
  });
  const page = await context.newPage();
  page.on("console", (message) => seen.complaints.push(message.text()));
  page.on("pageerror", (error) => seen.complaints.push(String(error)));
  await page.goto(`file://${file}`, { waitUntil: "load" });
  return { context, page, seen };
};

const look = async (browser, name) => {
  const file = path.join(folder, `${name}.html`);
  const report = { name, file: `file://${file}` };
  for (const colorScheme of ["light", "dark"]) {
    const { context, page, seen } = await open(browser, file, { colorScheme });
    report[colorScheme] = await page.evaluate(plots);
    report[`${colorScheme}_background`] = await page.evaluate(
      () => getComputedStyle(document.body).backgroundColor);
    const screenshot = path.join(folder, `${name}-${colorScheme}.png`);
    await page.screenshot({ path: screenshot, fullPage: true });
    if (colorScheme === "light") {
      // The same page changes to the other scheme and to a narrow window.
      await page.emulateMedia({ colorScheme: "dark" });
      await page.setViewportSize({ width: 480, height: 900 });
      await page.waitForFunction(() => {
        const place = document.querySelector(".plot");
        const drawn = place?.querySelector(".uplot");
        return !drawn || drawn.clientWidth === place.clientWidth;
      });
      report.narrow = await page.evaluate(plots);
      report.sideways = await page.evaluate(
        () => document.documentElement.scrollWidth - window.innerWidth);
      await page.screenshot({ path: path.join(folder, `${name}-narrow.png`), fullPage: true });
    }
    report[`${colorScheme}_seen`] = seen;
    await context.close();
  }
  const plain = await open(browser, file, { javaScriptEnabled: false });
  report.without_script = await plain.page.innerText("main");
  await plain.context.close();
  return report;
};

(async () => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  try {
    for (const name of JSON.parse(fs.readFileSync(path.join(folder, "names.json"), "utf8"))) {
      console.log(JSON.stringify(await look(browser, name)));
    }
  } finally {
    await browser.close();
  }
})();
