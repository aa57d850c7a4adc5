import type { ComponentChildren } from 'preact'
import type { Grounding } from '../../grounding.js'
import type { Tiling } from './api-client.js'
import type { Medium } from './exchange.js'

/** A layer over an image that can be switched off. */
export interface Layer {
  readonly name: string
  /** The layer in a box that covers the image; undefined where there is none. */
  readonly content: ComponentChildren | undefined
}

const count = (n: number, noun: string): string => `${n.toLocaleString('en')} ${noun}${n === 1 ? '' : 's'}`

/** The tiles in words, with their tokens. */
const tilingText = (tiling: Tiling): string => {
  const {
    type,
    tiles,
    columns = 1,
    rows = 1,
    tile_width: width,
    tile_height: height,
    tokens_per_tile: perTile,
    tokens,
    has_thumbnail
  } = tiling
  const [size, total] = [`${width} × ${height} pixels`, count(tokens, 'token')]
  if (tiles === 1) return `1 ${type === 'video' ? 'frame' : 'tile'} of ${size}: ${total}`
  const parts = type === 'video' ? `${tiles} frames` : `${columns} × ${rows} tiles`
  return `${parts} of ${size}${has_thumbnail ? ' and a thumbnail' : ''}, ${perTile} tokens each: ${total}`
}

const TileGrid = ({ columns = 1, rows = 1, tokens_per_tile: tokens }: Tiling) => (
  <div class="grid" style={{ gridTemplate: `repeat(${rows}, 1fr) / repeat(${columns}, 1fr)` }}>
    {Array.from({ length: columns * rows }, (_, i) => (
      <div class="tile" key={i}>
        <span>
          <b>{i + 1}</b> {tokens} tokens
        </span>
      </div>
    ))}
  </div>
)

/** Number of colours of boxes in page.css. */
const COLOURS = 6

/** Class of the colour of a label's boxes. */
export const boxColour = (groundings: readonly Grounding[], label: string): string =>
  `colour-${
    Math.max(
      0,
      groundings.findIndex((grounding) => grounding.label === label)
    ) % COLOURS
  }`

const Boxes = ({ groundings }: { readonly groundings: readonly Grounding[] }) => (
  <>
    {groundings.flatMap(({ label, boxes }, i) =>
      boxes.map(([x1, y1, x2, y2], j) => {
        const [left, top, right, bottom] = [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)]
        const style = {
          left: `${left / 10}%`,
          top: `${top / 10}%`,
          width: `${(right - left) / 10}%`,
          height: `${(bottom - top) / 10}%`
        }
        return (
          <div class={`box ${boxColour(groundings, label)}`} style={style} key={`${i} ${j}`}>
            <span>{label}</span>
          </div>
        )
      })
    )}
  </>
)

/** The layers of an image, the lowest first. */
const layersOf = (
  tiling: Tiling | undefined,
  groundings: readonly Grounding[],
  heatMap: string | undefined
): readonly Layer[] => [
  { name: 'Heat map', content: heatMap === undefined ? undefined : <img src={heatMap} alt="" /> },
  { name: 'Tiles', content: tiling?.type === 'image' ? <TileGrid {...tiling} /> : undefined },
  { name: 'Boxes', content: groundings.length > 0 ? <Boxes groundings={groundings} /> : undefined }
]

interface ImageViewProps {
  readonly medium: Medium
  readonly tiling: Tiling | undefined
  /** Reason for which the server gives no tiles. */
  readonly problem: string | undefined
  readonly groundings: readonly Grounding[]
  /** Data URL of a heat map of the whole image. */
  readonly heatMap: string | undefined
  /** Names of the layers that are switched off. */
  readonly hidden: readonly string[]
  readonly onToggle: (layer: string) => void
  readonly children?: ComponentChildren
}

/** An image with its layers over it and its thumbnail below; or a video with its number of frames. `children` follow the layers. */
export const ImageView = ({ medium, tiling, problem, groundings, heatMap, hidden, onToggle, children }: ImageViewProps) => {
  const layers = layersOf(tiling, groundings, heatMap).filter(({ content }) => content !== undefined)
  const shown = layers.filter(({ name }) => !hidden.includes(name))
  const { width = 0, height = 0 } = tiling ?? {}
  // small images are enlarged, large ones fit in the window
  const fitted =
    width > 0 ? { width: `min(100%, calc(var(--fit) * ${width / height}))`, aspectRatio: `${width} / ${height}` } : {}
  const boxes = groundings.flatMap(({ label, boxes }) => boxes.map((box) => `${label || 'box'} at ${box.join(', ')}`))
  return (
    <figure class="image-view">
      {medium.kind === 'video' ? (
        <video src={medium.preview} controls muted playsInline aria-label={medium.name} />
      ) : (
        <div class="stage" style={fitted}>
          <img src={medium.preview} alt={medium.name} />
          {shown.map(({ name, content }) => (
            <div class="layer" aria-hidden="true" key={name}>
              {content}
            </div>
          ))}
        </div>
      )}
      <figcaption>
        {layers.length > 0 && (
          <div class="layers">
            {layers.map(({ name }) => (
              <label key={name}>
                <input type="checkbox" checked={!hidden.includes(name)} onChange={() => onToggle(name)} /> {name}
              </label>
            ))}
          </div>
        )}
        {children}
        <div class="tiling">
          {tiling?.has_thumbnail && (
            <div class="thumbnail">
              <img src={medium.preview} alt="" />
              <span>thumbnail {tiling.tokens_per_tile} tokens</span>
            </div>
          )}
          <p>
            <b>{medium.name}</b>
            {tiling?.width !== undefined && ` · ${tiling.width} × ${tiling.height} pixels`}
            <br />
            {problem ? <span class="problem">{problem}</span> : tiling ? tilingText(tiling) : 'Counting tiles …'}
          </p>
        </div>
        {boxes.length > 0 && <p class="visually-hidden">Boxes, in thousandths of width and height: {boxes.join('; ')}</p>}
      </figcaption>
    </figure>
  )
}
