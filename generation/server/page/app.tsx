import { useEffect, useRef, useState } from 'preact/hooks'
import { type ApiError, fetchModel, type ServedModel } from './api-client.js'
import { Composer } from './composer.js'
import { useConversation, useFollow } from './conversation/conversation-state.js'
import { ConversationView, type TokenPosition } from './conversation/conversation-view.js'
import { type ChatSettings, groundingsFor, type Medium } from './exchange.js'
import { HeatPanel, useHeatMap } from './heat/heat-map.js'
import { heatTarget } from './heat/heat-request.js'
import { ImageView } from './image-view.js'
import { useMedia, useTiling } from './media-state.js'
import { KeyForm, ModelHeader } from './model-header.js'
import { SettingsView } from './settings-view.js'

const KEY = 'internvl api key'

/** The served model, or the form for its key. */
const useModel = () => {
  const [key, setKey] = useState(sessionStorage.getItem(KEY) ?? '')
  const [model, setModel] = useState<ServedModel>()
  const [error, setError] = useState<ApiError>()
  useEffect(() => {
    fetchModel(key).then(
      (found) => {
        sessionStorage.setItem(KEY, key)
        setModel(found)
        setError(undefined)
      },
      (failure: ApiError) => setError(failure)
    )
  }, [key])
  return { key, setKey, model, error }
}

const noSettings: ChatSettings = {
  system: '',
  maxTokens: 512,
  temperature: undefined,
  seed: undefined,
  maxPatches: undefined,
  numFrames: undefined
}

const Chat = ({ model, apiKey }: { readonly model: ServedModel | undefined; readonly apiKey: string }) => {
  const [settings, setSettings] = useState(noSettings)
  const { exchanges, isAnswering, ask, retry, stop, clear } = useConversation(settings, apiKey)
  const [text, setText] = useState('')
  const [problem, setProblem] = useState<string>()
  const [selected, setSelected] = useState<Medium>()
  const { media, setMedia, addFiles } = useMedia(setSelected, setProblem)
  const [hidden, setHidden] = useState<readonly string[]>([])
  const [showTokens, setShowTokens] = useState(false)
  const [focused, setFocused] = useState<TokenPosition>()
  const { tiling, problem: tilingProblem } = useTiling(selected, settings, apiKey)
  const { heat, method, choose, changeMethod, stop: stopHeat, clear: clearHeat } = useHeatMap(apiKey)
  const shownHeat = showTokens && heat?.target.medium.id === selected?.id ? heat : undefined
  useFollow(exchanges.length, exchanges.at(-1)?.answer)
  const aside = useRef<HTMLElement>(null)
  useEffect(() => aside.current?.scrollIntoView({ block: 'nearest' }), [selected, heat?.target])
  useEffect(() => {
    const onKeyDown = ({ key }: KeyboardEvent): void => {
      if (key === 'Escape') stop()
    }
    addEventListener('keydown', onKeyDown)
    return () => removeEventListener('keydown', onKeyDown)
  }, [])
  const send = (): void => {
    if (isAnswering || text.trim() === '') return
    void ask(text, media)
    setText('')
    setMedia([])
    setProblem(undefined)
  }
  const remove = (medium: Medium): void => {
    setMedia(media.filter(({ id }) => id !== medium.id))
    if (selected?.id === medium.id) setSelected(exchanges.flatMap(({ media }) => media).at(-1))
  }
  const clearAll = (): void => {
    clear()
    clearHeat()
    setMedia([])
    setSelected(undefined)
  }
  const chooseToken = (exchange: number, token: number): void => {
    const target = heatTarget(exchanges.slice(0, exchange + 1), settings, token, selected)
    setProblem(typeof target === 'string' ? target : undefined)
    if (typeof target === 'string') return
    setSelected(target.medium)
    setHidden(hidden.filter((name) => name !== 'Heat map'))
    choose(target)
  }
  const askAgain = (): void => {
    clearHeat() // its token is one of the answer that goes
    void retry()
  }
  const toggle = (layer: string): void =>
    setHidden(hidden.includes(layer) ? hidden.filter((name) => name !== layer) : [...hidden, layer])
  return (
    <>
      <ModelHeader model={model} showTokens={showTokens} onShowTokens={setShowTokens} onClear={clearAll} />
      <main class={selected ? 'with-image' : ''}>
        <ConversationView
          exchanges={exchanges}
          selected={selected}
          onSelect={setSelected}
          showTokens={showTokens}
          focused={focused}
          onFocus={setFocused}
          chosen={heat && [heat.target.exchangeId, heat.target.token]}
          onChoose={chooseToken}
          onRetry={askAgain}
        />
        {selected && (
          <aside ref={aside} aria-label="The image as the model sees it">
            <ImageView
              medium={selected}
              tiling={tiling}
              problem={tilingProblem}
              groundings={groundingsFor(exchanges, selected.id)}
              heatMap={shownHeat?.map?.heat_map}
              hidden={hidden}
              onToggle={toggle}
            >
              {showTokens && selected.kind === 'image' && (
                <HeatPanel heat={shownHeat} method={method} onMethod={changeMethod} onStop={stopHeat} />
              )}
            </ImageView>
          </aside>
        )}
        <div class="bottom">
          <Composer
            text={text}
            media={media}
            isAnswering={isAnswering}
            problem={problem}
            onText={setText}
            onFiles={(files) => void addFiles(files)}
            onRemove={remove}
            onSend={send}
            onStop={stop}
          />
          <SettingsView settings={settings} onChange={setSettings} />
        </div>
      </main>
    </>
  )
}

/** The page: the form for a key where the server needs one, else the conversation. */
export const App = () => {
  const { key, setKey, model, error } = useModel()
  if (!model && error?.status === 401) return <KeyForm problem={key === '' ? undefined : error.message} onKey={setKey} />
  if (!model && error)
    return (
      <p class="problem" role="alert">
        {error.message}
      </p>
    )
  return <Chat model={model} apiKey={key} />
}
