import { useEffect, useRef, useState } from 'preact/hooks'
import { type ApiError, fetchModel, fetchTiling, type ServedModel, streamChunks, type Tiling } from './api-client.js'
import { Composer } from './composer.js'
import {
  type Answer,
  atEnd,
  type ChatSettings,
  chatBody,
  type Exchange,
  emptyAnswer,
  groundingsFor,
  isOpen,
  type Medium,
  withChunk
} from './exchange.js'
import { ExchangeView } from './exchange-view.js'
import { ImageView } from './image-view.js'
import { readMedium } from './media-file.js'
import { KeyForm, ModelHeader } from './model-header.js'
import { SettingsView } from './settings-view.js'

const KEY = 'internvl api key'

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

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

type TilingState = { readonly tiling?: Tiling; readonly problem?: string }

/** Tiles of an image or video as the server counts them; counted again when the settings change. */
const useTiling = (medium: Medium | undefined, settings: ChatSettings, key: string): TilingState => {
  const [state, setState] = useState<TilingState>({})
  const { maxPatches, numFrames } = settings
  useEffect(() => {
    let isCurrent = true
    setState({})
    if (medium)
      fetchTiling(medium, settings, key).then(
        (tiling) => isCurrent && setState({ tiling }),
        (error) => isCurrent && setState({ problem: messageOf(error) })
      )
    return () => {
      isCurrent = false
    }
  }, [medium, maxPatches, numFrames, key])
  return state
}

/** The conversation, and the functions that change it. */
const useConversation = (settings: ChatSettings, key: string) => {
  const [exchanges, setExchanges] = useState<readonly Exchange[]>([])
  const running = useRef<AbortController | undefined>(undefined)
  const run = async (all: readonly Exchange[]): Promise<void> => {
    const controller = new AbortController()
    running.current = controller
    const { id } = all.at(-1)!
    const update = (change: (answer: Answer) => Answer): void =>
      setExchanges((list) =>
        list.map((exchange) => (exchange.id === id ? { ...exchange, answer: change(exchange.answer) } : exchange))
      )
    setExchanges(all)
    try {
      for await (const chunk of streamChunks(chatBody(all, settings), key, controller.signal))
        update((answer) => withChunk(answer, chunk, performance.now()))
      update(atEnd)
    } catch (error) {
      const isStopped = controller.signal.aborted
      update((answer) => ({ ...answer, ...(isStopped ? { status: 'stopped' } : { status: 'failed', error: messageOf(error) }) }))
    }
  }
  const stop = (): void => running.current?.abort()
  return {
    exchanges,
    isAnswering: exchanges.some(({ answer }) => isOpen(answer)),
    ask: (question: string, media: readonly Medium[]) =>
      run([...exchanges, { id: exchanges.length, question, media, answer: emptyAnswer(performance.now()) }]),
    retry: () => run([...exchanges.slice(0, -1), { ...exchanges.at(-1)!, answer: emptyAnswer(performance.now()) }]),
    stop,
    clear: () => {
      stop()
      setExchanges([])
    }
  }
}

/** Files that are dropped on the window or pasted. */
const useFiles = (onFiles: (files: readonly File[]) => void) => {
  const latest = useRef(onFiles)
  latest.current = onFiles
  useEffect(() => {
    const take = (event: Event, data: DataTransfer | null): void => {
      const files = [...(data?.files ?? [])]
      if (files.length === 0) return // text is dropped and pasted as usual
      event.preventDefault()
      latest.current(files)
    }
    const onDrop = (event: DragEvent): void => take(event, event.dataTransfer)
    const onPaste = (event: ClipboardEvent): void => take(event, event.clipboardData)
    const onDragOver = (event: DragEvent): void => event.preventDefault()
    addEventListener('drop', onDrop)
    addEventListener('dragover', onDragOver)
    addEventListener('paste', onPaste)
    return () => {
      removeEventListener('drop', onDrop)
      removeEventListener('dragover', onDragOver)
      removeEventListener('paste', onPaste)
    }
  }, [])
}

/** Scrolls to a new question, and follows an answer whose end is in view. */
const useFollow = (questions: number, answer: Answer | undefined): void => {
  const before = useRef({ questions, bottom: 0 })
  useEffect(() => {
    const { scrollHeight } = document.documentElement
    const isAtEnd = scrollY + innerHeight >= before.current.bottom - 40
    if (questions !== before.current.questions || isAtEnd) scrollTo(0, scrollHeight)
    before.current = { questions, bottom: scrollHeight }
  }, [questions, answer])
}

/** A sentence for screen readers at the beginning and at the end of an answer. */
const statusText = (answer: Answer | undefined): string => {
  if (!answer) return ''
  if (isOpen(answer)) return 'The model answers.'
  return answer.status === 'failed' ? '' : `Answer ${answer.status}, ${answer.tokens.length} tokens: ${answer.text}`
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
  const [media, setMedia] = useState<readonly Medium[]>([])
  const [problem, setProblem] = useState<string>()
  const [selected, setSelected] = useState<Medium>()
  const [hidden, setHidden] = useState<readonly string[]>([])
  const [showTokens, setShowTokens] = useState(false)
  const [focused, setFocused] = useState<readonly [exchange: number, token: number]>()
  const { tiling, problem: tilingProblem } = useTiling(selected, settings, apiKey)
  const { length } = exchanges
  useFollow(length, exchanges.at(-1)?.answer)
  const aside = useRef<HTMLElement>(null)
  useEffect(() => aside.current?.scrollIntoView({ block: 'nearest' }), [selected])
  useEffect(() => {
    const onKeyDown = ({ key }: KeyboardEvent): void => {
      if (key === 'Escape') stop()
    }
    addEventListener('keydown', onKeyDown)
    return () => removeEventListener('keydown', onKeyDown)
  }, [])
  const addFiles = async (files: readonly File[]): Promise<void> => {
    setProblem(undefined)
    for (const file of files)
      try {
        const medium = await readMedium(file)
        setMedia((list) => [...list, medium])
        setSelected(medium)
      } catch (error) {
        setProblem(messageOf(error))
      }
  }
  useFiles((files) => void addFiles(files))
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
    setMedia([])
    setSelected(undefined)
  }
  const toggle = (layer: string): void =>
    setHidden(hidden.includes(layer) ? hidden.filter((name) => name !== layer) : [...hidden, layer])
  return (
    <>
      <ModelHeader model={model} showTokens={showTokens} onShowTokens={setShowTokens} onClear={clearAll} />
      <main class={selected ? 'with-image' : ''}>
        <section class="conversation" aria-label="Conversation">
          {showTokens && (
            <p class="legend">
              Probability of a token: 100 % <span class="scale" aria-hidden="true" /> 0 %. Hover or focus a token for its
              alternatives.
            </p>
          )}
          {length === 0 && <p class="empty">Drop, paste or choose an image or a video, and ask about it.</p>}
          <ol>
            {exchanges.map((exchange, i) => (
              <ExchangeView
                key={exchange.id}
                exchange={exchange}
                isSelected={({ id }) => id === selected?.id}
                onSelect={setSelected}
                showTokens={showTokens}
                focusedToken={focused?.[0] === exchange.id ? focused[1] : undefined}
                onFocusToken={(token) => setFocused(token === undefined ? undefined : [exchange.id, token])}
                onRetry={i === length - 1 && ['failed', 'stopped'].includes(exchange.answer.status) ? retry : undefined}
              />
            ))}
          </ol>
          <p class="visually-hidden" role="status">
            {statusText(exchanges.at(-1)?.answer)}
          </p>
        </section>
        {selected && (
          <aside ref={aside} aria-label="The image as the model sees it">
            <ImageView
              medium={selected}
              tiling={tiling}
              problem={tilingProblem}
              groundings={groundingsFor(exchanges, selected.id)}
              hidden={hidden}
              onToggle={toggle}
            />
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
