import { useEffect, useRef, useState } from 'preact/hooks'
import { fetchHeatMap, type HeatMap, type HeatProgress, messageOf } from '../api-client.js'
import { type HeatMethod, type HeatTarget, heatMethods } from './heat-request.js'

/** The heat map of a chosen token: still running, stopped, ready, or failed. */
export interface HeatState {
  readonly target: HeatTarget
  readonly status: 'running' | 'stopped' | 'ready' | 'failed'
  /** While it runs, after the server has read the answer. */
  readonly progress?: HeatProgress
  readonly map?: HeatMap
  readonly problem?: string
}

/** The heat map of one token at a time, and the functions that ask for it. A new choice aborts the one before; Escape aborts it too. */
export const useHeatMap = (key: string) => {
  const [method, setMethod] = useState<HeatMethod>('occlusion')
  const [heat, setHeat] = useState<HeatState>()
  const running = useRef<AbortController | undefined>(undefined)
  const request = async (target: HeatTarget, by: HeatMethod): Promise<void> => {
    running.current?.abort()
    const controller = new AbortController()
    running.current = controller
    const { signal } = controller
    setHeat({ target, status: 'running' })
    try {
      const onProgress = (progress: HeatProgress): void => {
        if (!signal.aborted) setHeat({ target, status: 'running', progress })
      }
      const map = await fetchHeatMap({ ...target.body, method: by }, key, signal, onProgress)
      if (map.text.trim() !== target.text)
        throw new Error(`There is no heat map of “${target.text}”: the server reads the answer as other tokens. Choose another.`)
      if (!signal.aborted) setHeat({ target, status: 'ready', map })
    } catch (error) {
      if (!signal.aborted) setHeat({ target, status: 'failed', problem: messageOf(error) })
    } finally {
      if (running.current === controller) running.current = undefined
    }
  }
  const abort = (): void => {
    running.current?.abort()
    running.current = undefined
  }
  const stop = (): void => {
    abort()
    setHeat((state) => (state?.status === 'running' ? { ...state, status: 'stopped' } : state))
  }
  const clear = (): void => {
    abort()
    setHeat(undefined)
  }
  useEffect(() => {
    // one listener for all maps: one that came with a map would miss a key pressed before its effect runs
    const onKeyDown = (event: KeyboardEvent): void => {
      if (event.key !== 'Escape' || !running.current) return
      event.stopPropagation() // an answer that is being written goes on
      stop()
    }
    addEventListener('keydown', onKeyDown, { capture: true })
    return () => removeEventListener('keydown', onKeyDown, { capture: true })
  }, [])
  /** Asks for a token's map; the token whose map is shown or awaited is chosen no more. */
  const choose = (target: HeatTarget): void => {
    const { exchangeId, token } = target
    const isSame = heat?.target.exchangeId === exchangeId && heat.target.token === token
    if (isSame && (heat.status === 'running' || heat.status === 'ready')) clear()
    else void request(target, method)
  }
  const changeMethod = (by: HeatMethod): void => {
    setMethod(by)
    if (heat) void request(heat.target, by)
  }
  return { heat, method, choose, changeMethod, stop, clear }
}

/** Seconds since the component appeared; they show that a long request is alive. */
const Elapsed = () => {
  const [seconds, setSeconds] = useState(0)
  useEffect(() => {
    const timer = setInterval(() => setSeconds((n) => n + 1), 1000)
    return () => clearInterval(timer)
  }, [])
  return <span aria-hidden="true">{seconds} s</span>
}

/** The share of the heat map that is done, as a bar and in percent; a bar without a share until the first report. */
const HeatBar = ({ progress }: { readonly progress: HeatProgress | undefined }) => {
  if (!progress) return <progress aria-label="The heat map is computed" />
  const percent = `${Math.floor((100 * progress.done) / progress.total)} %`
  return (
    <>
      <progress aria-label="The heat map is computed" aria-valuetext={percent} value={progress.done} max={progress.total}>
        {percent}
      </progress>{' '}
      <span aria-hidden="true">{percent}</span>
    </>
  )
}

const statusText = ({ status, target: { text }, map }: HeatState): string =>
  ({
    running: `The heat map of “${text}” is computed …`,
    stopped: 'Stopped.',
    ready: `Heat map of “${text}” by ${map?.method}.`,
    failed: ''
  })[status]

interface HeatPanelProps {
  readonly heat: HeatState | undefined
  readonly method: HeatMethod
  readonly onMethod: (method: HeatMethod) => void
  readonly onStop: () => void
}

/** The method, and the state of the heat map with its colours. */
export const HeatPanel = ({ heat, method, onMethod, onStop }: HeatPanelProps) => (
  <section class="heat" aria-label="Heat map of a token">
    <label>
      Heat map by{' '}
      <select value={method} onChange={(event) => onMethod(event.currentTarget.value as HeatMethod)}>
        {Object.keys(heatMethods).map((name) => (
          <option key={name}>{name}</option>
        ))}
      </select>
    </label>
    <p>{heatMethods[method]}</p>
    <p role="status">{heat ? statusText(heat) : 'Choose a token of an answer.'}</p>
    {heat?.status === 'running' && (
      <p>
        <HeatBar progress={heat.progress} /> <Elapsed key={`${heat.target.exchangeId} ${heat.target.token} ${method}`} />{' '}
        <button type="button" class="quiet" onClick={onStop}>
          Stop the heat map
        </button>
      </p>
    )}
    {heat?.status === 'ready' && (
      <p>
        0 <span class="scale" role="img" aria-label="Colours from blue, no influence, to red, the most" /> most
      </p>
    )}
    {heat?.problem !== undefined && (
      <p class="problem" role="alert">
        {heat.problem}
      </p>
    )}
  </section>
)
