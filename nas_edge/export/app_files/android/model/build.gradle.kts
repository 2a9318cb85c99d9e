plugins {
    id("com.android.library")
    id("org.jetbrains.kotlin.android")
}

// The model stays where it is, beside this example; a copy is made when the module is built.
val bundle = rootDir.parentFile
val modelAssets = layout.buildDirectory.dir("bundleAssets")
val copyModel by tasks.registering(Copy::class) {
    from(bundle) { include("*.tflite", "labels.txt", "golden/**") }
    into(modelAssets)
}

android {
    namespace = "ai.nasedge.example"
    compileSdk = 35
    defaultConfig {
        minSdk = 24
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
    }
    sourceSets["main"].assets.srcDir(modelAssets)
    androidResources { noCompress += "tflite" }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    kotlinOptions { jvmTarget = "17" }
}

tasks.named("preBuild") { dependsOn(copyModel) }
tasks.withType<Test>().configureEach { systemProperty("bundle", bundle.path) }

dependencies {
    implementation("com.google.ai.edge.litert:litert:1.4.1")
    testImplementation("junit:junit:4.13.2")
    androidTestImplementation("androidx.test:runner:1.6.2")
    androidTestImplementation("androidx.test.ext:junit:1.2.1")
}
