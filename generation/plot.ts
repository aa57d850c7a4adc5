import type { TopLevelSpec } from 'vega-lite'
import { svgToPng } from '../processors/image/draw.js'

/** One line of a plot; its points are joined in the order of x. Values that are not finite, such as an overflowed loss, are gaps. */
export interface Series {
  readonly name: string
  /** Every x is a number, or every x is a category, shown in the order of first appearance. */
  readonly points: readonly (readonly [x: number | string, y: number])[]
  /** Draw a dot at each point; by default for at most 40 points. */
  readonly dots?: boolean
}

/** Title of a plot, and the name of each axis with its unit. */
export interface PlotLabels {
  readonly title: string
  readonly x: string
  readonly y: string
  /** Logarithmic y axis; values of 0 or less are gaps. */
  readonly logY?: boolean
}

/** Lines with common axes. */
export interface Panel extends PlotLabels {
  readonly series: readonly Series[]
}

const [WIDTH, HEIGHT, FEW] = [640, 320, 40] // pixels at single density; points

const toRows = ({ series, logY }: Panel) =>
  series.flatMap(({ name, points }) =>
    points.map(([x, y]) => ({ name, x, y: Number.isFinite(y) && (!logY || y > 0) ? y : null }))
  )

const toVegaLite = (panel: Panel) => {
  const { title, x, y, series, logY } = panel
  const values = toRows(panel)
  if (!values.some((row) => row.y !== null))
    throw new RangeError(`linePlot: ${JSON.stringify(title)} has no finite point to draw`)
  const isOrdinal = values.some((row) => typeof row.x === 'string')
  const dots = series.every(({ dots, points }) => dots ?? points.length <= FEW)
  const axis = { titleFontSize: 12, labelFontSize: 11 }
  return {
    data: { values },
    title,
    width: WIDTH,
    height: HEIGHT,
    mark: { type: 'line', point: dots, invalid: 'break-paths-show-domains' },
    encoding: {
      x: isOrdinal
        ? { field: 'x', type: 'ordinal', sort: null, title: x, axis: { ...axis, labelAngle: -40 } }
        : { field: 'x', type: 'quantitative', title: x, axis, scale: { zero: false } },
      y: { field: 'y', type: 'quantitative', title: y, axis, scale: logY ? { type: 'log' } : { zero: false } },
      color: { field: 'name', type: 'nominal', title: null, sort: null, legend: series.length > 1 ? { labelLimit: 0 } : null }
    }
  }
}

/** A plot as SVG text: panels below each other, each with its own axes and colours. Throws a `RangeError` for a panel without points. */
export const plotSvg = async (panels: readonly Panel[]): Promise<string> => {
  const specs = panels.map(toVegaLite)
  // loading vega takes half a second, so only when a plot is drawn
  const [{ compile }, { View, parse }] = await Promise.all([import('vega-lite'), import('vega')])
  const spec = { vconcat: specs, resolve: { scale: { color: 'independent', x: 'independent' } } } as unknown as TopLevelSpec
  const view = new View(parse(compile(spec).spec), { renderer: 'none' })
  try {
    return await view.toSVG()
  } finally {
    view.finalize()
  }
}

/** Panels below each other as the bytes of a PNG file. */
export const linePlots = async (panels: readonly Panel[]): Promise<Uint8Array> => svgToPng(await plotSvg(panels))

/**
 * Lines in one plot as the bytes of a PNG file.
 *
 * `await writeFile('loss.png', await linePlot([{ name: 'train', points: [[1, 2.3], [2, 1.9]] }], { title: 'Loss', x: 'step', y: 'loss' }))`
 */
export const linePlot = (series: readonly Series[], labels: PlotLabels): Promise<Uint8Array> => linePlots([{ ...labels, series }])
