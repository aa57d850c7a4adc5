import { useState } from 'preact/hooks'
import type { ServedModel } from './api-client.js'

const parametersText = (n: number): string => (n >= 1e9 ? `${(n / 1e9).toFixed(1)} B` : `${(n / 1e6).toFixed(n < 1e7 ? 1 : 0)} M`)

interface ModelHeaderProps {
  readonly model: ServedModel | undefined
  readonly showTokens: boolean
  readonly onShowTokens: (isShown: boolean) => void
  readonly onClear: () => void
}

/** The model's name, size and precision, and the switches of the whole conversation. */
export const ModelHeader = ({ model, showTokens, onShowTokens, onClear }: ModelHeaderProps) => (
  <header class="top">
    <h1>{model?.id ?? 'InternVL'}</h1>
    {model && (
      <ul class="facts" aria-label="Model">
        <li>{model.precision}</li>
        <li>{parametersText(model.parameters)} parameters</li>
        <li>{model.engine} engine</li>
        <li>context {model.max_model_len.toLocaleString('en')} tokens</li>
      </ul>
    )}
    <div class="switches">
      <label>
        <input type="checkbox" checked={showTokens} onChange={(event) => onShowTokens(event.currentTarget.checked)} /> Token
        probabilities
      </label>
      <button type="button" onClick={onClear}>
        New conversation
      </button>
      <a href="reference">API</a>
    </div>
  </header>
)

interface KeyFormProps {
  readonly problem: string | undefined
  readonly onKey: (key: string) => void
}

/** Asks for the API key of a server that has one. */
export const KeyForm = ({ problem, onKey }: KeyFormProps) => {
  const [key, setKey] = useState('')
  const onSubmit = (event: Event): void => {
    event.preventDefault()
    onKey(key.trim())
  }
  return (
    <form class="key" onSubmit={onSubmit}>
      <h1>InternVL</h1>
      <label>
        This server needs an API key
        <input type="password" autocomplete="off" required value={key} onInput={(event) => setKey(event.currentTarget.value)} />
      </label>
      {problem !== undefined && (
        <p class="problem" role="alert">
          {problem}
        </p>
      )}
      <button type="submit" class="primary">
        Connect
      </button>
      <p>The key stays in this tab and is sent to this server alone.</p>
    </form>
  )
}
